// SPDX-License-Identifier: GPL-3.0-or-later

// Package ext is empty, as in Traefik's own repository: it is there for builds that add to it. Traefik's
// published module leaves it out, because it is a module of its own.
package ext

// HTTP adds nothing to the HTTP configuration.
type HTTP struct{}

// Router adds nothing to a router.
type Router struct{}
