//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// rounds is in how many parts the runs of a measurement are done. Commands that
// are compared take turns, so that what else the machine does meets them all.
const rounds = 5

// race returns the median time of each command, of at least b.runs runs each.
// Hyperfine takes the times where it is installed.
func (b *bench) race(env []string, commands ...[]string) ([]time.Duration, error) {
	if b.hyperfine == "" {
		return b.alternate(len(commands), func(i int) (time.Duration, error) { return run(env, commands[i]) })
	}
	times := make([][]time.Duration, len(commands))
	export := filepath.Join(b.dir, "hyperfine.json")
	args := []string{"--shell=none", "--style=none", "--output=pipe", "--warmup=2", "--export-json=" + export,
		fmt.Sprintf("--runs=%d", max(2, (b.runs+rounds-1)/rounds))}
	for _, command := range commands {
		args = append(args, "'"+strings.Join(command, "' '")+"'")
	}
	for range rounds {
		command := exec.Command(b.hyperfine, args...)
		command.Env = env
		if out, err := command.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("hyperfine: %w\n%s", err, out)
		}
		data, err := os.ReadFile(export)
		if err != nil {
			return nil, err
		}
		var measured struct {
			Results []struct {
				Times []float64 `json:"times"` // seconds
			} `json:"results"`
		}
		if err := json.Unmarshal(data, &measured); err != nil {
			return nil, err
		}
		for i, result := range measured.Results {
			for _, seconds := range result.Times {
				times[i] = append(times[i], time.Duration(seconds*float64(time.Second)))
			}
		}
	}
	return medians(times), nil
}

// alternate returns the median of each of n measurements, which take turns. The
// first turn only warms up.
func (b *bench) alternate(n int, measure func(int) (time.Duration, error)) ([]time.Duration, error) {
	times := make([][]time.Duration, n)
	for turn := range b.runs + 1 {
		for i := range n {
			d, err := measure(i)
			if err != nil {
				return nil, err
			}
			if turn > 0 {
				times[i] = append(times[i], d)
			}
		}
	}
	return medians(times), nil
}

func medians(times [][]time.Duration) []time.Duration {
	result := make([]time.Duration, len(times))
	for i, list := range times {
		slices.Sort(list)
		result[i] = list[len(list)/2]
	}
	return result
}

// run is how long a command takes from its start to its end.
func run(env, command []string) (time.Duration, error) {
	c := exec.Command(command[0], command[1:]...)
	c.Env = env
	var failure strings.Builder
	c.Stderr = &failure
	start := time.Now()
	err := c.Run()
	took := time.Since(start)
	if err != nil {
		return 0, fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, failure.String())
	}
	return took, nil
}

// output is what a command prints.
func output(env, command []string) ([]byte, error) {
	c := exec.Command(command[0], command[1:]...)
	c.Env = env
	var failure strings.Builder
	c.Stderr = &failure
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, failure.String())
	}
	return out, nil
}

// peak is the most memory that a command has at a time, in KB, and how long it
// takes, where it is run by a function such as run.
func (b *bench) peak(run func(env, command []string) (time.Duration, error), env, command []string) (int, time.Duration, error) {
	file := filepath.Join(b.dir, "peak")
	took, err := run(env, append([]string{b.program("peak"), file}, command...))
	if err != nil {
		return 0, 0, err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, 0, err
	}
	kb, err := strconv.Atoi(string(text))
	return kb, took, err
}
