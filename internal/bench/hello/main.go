//go:build linux

// Command hello is what make bench compares the start of upsauth with: a Go
// program that does nothing.
package main

import "fmt"

func main() { fmt.Println("hello, world") }
