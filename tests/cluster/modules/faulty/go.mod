module progressive.delivery/tests/cluster/faulty

go 1.24
