// SPDX-License-Identifier: GPL-3.0-or-later

// Command faulty answers like podinfo on port 9898 and has one fault, which its argument names:
//
//	never-ready  /readyz answers 503
//	answers-500  the probes pass, everything else answers 500
//	crash        ends with exit code 1 at once
//	late         /healthz answers 500 once the pod has served 50 requests to /, which are all answered
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

const servedBeforeFault = 50

func main() {
	fault := ""
	if len(os.Args) > 1 {
		fault = os.Args[1]
	}
	if fault == "crash" {
		fmt.Println("starting")
		fmt.Println("cannot open database: connection refused")
		os.Exit(1)
	}
	var served atomic.Int64
	answer := func(status int, body map[string]string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(body)
		}
	}
	version := map[string]string{"version": "broken-" + fault, "commit": "unknown"}
	ok := map[string]string{"status": "OK"}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", answer(http.StatusOK, ok))
	mux.HandleFunc("/readyz", answer(http.StatusOK, ok))
	mux.HandleFunc("/version", answer(http.StatusOK, version))
	mux.HandleFunc("/", answer(http.StatusOK, version))
	handler := http.Handler(mux)
	switch fault {
	case "never-ready":
		handler = override(mux, "/readyz", func() bool { return true }, answer(http.StatusServiceUnavailable, nil))
	case "answers-500":
		broken := answer(http.StatusInternalServerError, map[string]string{"error": "cannot reach the payment service"})
		handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/readyz" || r.URL.Path == "/healthz" {
				mux.ServeHTTP(w, r)
				return
			}
			broken(w, r)
		})
	case "late":
		failing := answer(http.StatusInternalServerError, map[string]string{"status": "the connection pool is exhausted"})
		counted := override(mux, "/healthz", func() bool { return served.Load() >= servedBeforeFault }, failing)
		handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/" {
				served.Add(1)
			}
			counted.ServeHTTP(w, r)
		})
	}
	server := &http.Server{Addr: ":9898", Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-ended
		time.Sleep(time.Second)
		timeout, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(timeout)
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		fmt.Println(err)
		os.Exit(1)
	}
	time.Sleep(100 * time.Millisecond)
}

// override answers one path with another handler for as long as the condition holds.
func override(next http.Handler, path string, holds func() bool, instead http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == path && holds() {
			instead(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}
