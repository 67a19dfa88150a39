//go:build linux

// Command asker asks a service for tokens over its socket, with keep-alive, and prints how
// long that took. It is a program of its own because a service's clients are others, and
// does as little as a client can: what it takes is taken from the same processors.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// result is what the measurement reads.
type result struct {
	P50, P99 time.Duration
	Each     time.Duration // of the clock, for one token of all clients together
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run takes the socket, a file with a path of a request on each line, the number of clients
// that ask at the same time, and of their requests.
func run(args []string) error {
	text, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	paths := strings.Fields(string(text))
	clients, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	requests, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	took, errs := make([][]time.Duration, clients), make([]error, clients)
	begun := time.Now()
	for i := range clients {
		all.Go(func() { took[i], errs[i] = ask(args[0], paths, i, clients, requests) })
	}
	all.Wait()
	r := result{Each: time.Since(begun) / time.Duration(requests)}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	times := slices.Concat(took...)
	slices.Sort(times)
	r.P50, r.P99 = times[len(times)/2], times[len(times)*99/100]
	return json.NewEncoder(os.Stdout).Encode(r)
}

// ask makes every so manyeth request over one connection.
func ask(socket string, paths []string, first, step, requests int) ([]time.Duration, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	reader := bufio.NewReader(conn)
	var took []time.Duration
	for i := first; i < requests; i += step {
		begun := time.Now()
		if _, err := io.WriteString(conn, "GET "+paths[i%len(paths)]+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return nil, err
		}
		answer, err := http.ReadResponse(reader, nil)
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil {
			return nil, err
		}
		took = append(took, time.Since(begun))
		if answer.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s: %s", answer.Status, body)
		}
	}
	return took, nil
}
