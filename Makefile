# Forwards only; what happens is in tests/run and bench/run.
.PHONY: check test bench clean lock
check:
	./tests/run check
test:
	./tests/run
bench:
	./bench/run
lock:
	./tests/run lock
clean:
	git clean -fdXq
