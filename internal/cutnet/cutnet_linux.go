// Package cutnet is a network for tests, of two hosts and a cable between them that
// is cut at the very packet that has a request in it, and mended later. It shows
// what a kernel still delivers then of what a process had written. It takes network
// namespaces, and so root.
package cutnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/upsauth/upsauth/internal/realpart"
)

const (
	clientAddr = "10.9.0.1/24"
	serverAddr = "10.9.0.2/24"
	// ServerHost is the server's address.
	ServerHost = "10.9.0.2"
)

// Net is the network.
type Net struct {
	tb                     testing.TB
	client, router, server string // the namespaces
	ends                   [2]*os.File

	mu    sync.Mutex
	cut   map[uint16]bool // by the client's port
	whole bool            // mended
	// Sent has one element for each connection whose request was held back.
	sent chan struct{}
}

// New makes a network that lasts as long as the test. Without root the test is
// skipped.
func New(tb testing.TB) *Net {
	tb.Helper()
	if os.Getuid() != 0 {
		tb.Skip("network namespaces take root")
	}
	realpart.Program(tb, "ip", "iproute2")
	name := fmt.Sprintf("upsauth-%d-%s", os.Getpid(), strings.ToLower(randomWord()))
	n := &Net{tb: tb, client: name + "-c", router: name + "-r", server: name + "-s", cut: map[uint16]bool{}, sent: make(chan struct{}, 64)}
	for _, space := range []string{n.client, n.router, n.server} {
		n.ip("netns", "add", space)
		tb.Cleanup(func() { _ = exec.Command("ip", "netns", "del", space).Run() })
		n.ip("-n", space, "link", "set", "lo", "up")
	}
	for i, host := range []struct{ space, addr string }{{n.client, clientAddr}, {n.server, serverAddr}} {
		end := fmt.Sprintf("end%d", i)
		n.ip("-n", host.space, "link", "add", "eth0", "type", "veth", "peer", "name", end, "netns", n.router)
		n.ip("-n", host.space, "addr", "add", host.addr, "dev", "eth0")
		n.ip("-n", host.space, "link", "set", "eth0", "up")
		n.ip("-n", n.router, "link", "set", end, "up")
		n.in(n.router, func() (err error) {
			n.ends[i], err = openEnd(end)
			return err
		})
	}
	var cables sync.WaitGroup
	cables.Go(func() { n.carry(n.ends[0], n.ends[1], true) })
	cables.Go(func() { n.carry(n.ends[1], n.ends[0], false) })
	tb.Cleanup(func() {
		n.ends[0].Close()
		n.ends[1].Close()
		cables.Wait()
	})
	return n
}

func randomWord() string {
	var b [4]byte
	_, _ = unix.Getrandom(b[:], 0)
	return fmt.Sprintf("%x", b)
}

func (n *Net) ip(args ...string) {
	n.tb.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		realpart.Missing(n.tb, fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out))
	}
}

// in does something in a namespace, on a thread that ends with it.
func (n *Net) in(space string, do func() error) {
	n.tb.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		f, err := os.Open("/run/netns/" + space)
		if err == nil {
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
			f.Close()
		}
		if err == nil {
			err = do()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		realpart.Missing(n.tb, err)
	}
}

// Listen listens on the server.
func (n *Net) Listen() net.Listener {
	n.tb.Helper()
	var listener net.Listener
	n.in(n.server, func() (err error) {
		listener, err = net.Listen("tcp", net.JoinHostPort(ServerHost, "0"))
		return err
	})
	return listener
}

// Command is a program on the client's host.
func (n *Net) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", n.client, name}, args...)...)
}

// Sent waits until another connection has sent its request, which has got no
// further than the cable, as nothing of that connection does from then on.
func (n *Net) Sent() <-chan struct{} { return n.sent }

// Mend makes the cable whole.
func (n *Net) Mend() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.whole = true
}

// Cut holds back the requests of connections that are made from now on.
func (n *Net) Cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.whole = false
	clear(n.cut)
}

// header is what the kernel puts before each packet: what it left to the network
// card to do, checksums and parts (linux/virtio_net.h).
const header = 10

func openEnd(name string) (*os.File, error) {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, all)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index}),
	); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (n *Net) carry(from, to *os.File, outward bool) {
	packet := make([]byte, header+1<<17)
	for {
		size, err := from.Read(packet)
		if err != nil {
			return
		}
		if n.passes(packet[header:size], outward) {
			_, _ = to.Write(packet[:size])
		}
	}
}

// passes looks at an Ethernet frame.
func (n *Net) passes(frame []byte, outward bool) bool {
	const ethernet, ipv4, tcp = 14, 0x0800, 6
	if len(frame) < ethernet+20 || binary.BigEndian.Uint16(frame[12:]) != ipv4 {
		return true
	}
	packet := frame[ethernet:]
	start := int(packet[0]&0xf) * 4
	if packet[9] != tcp || len(packet) < start+20 {
		return true
	}
	segment := packet[start:]
	port := binary.BigEndian.Uint16(segment)
	if !outward {
		port = binary.BigEndian.Uint16(segment[2:])
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.whole || n.cut[port] {
		return n.whole
	}
	end := min(len(packet), int(binary.BigEndian.Uint16(packet[2:])))
	payload := packet[min(end, start+int(segment[12]>>4)*4):end]
	if outward && isRequest(payload) {
		n.cut[port] = true
		n.sent <- struct{}{}
		return false
	}
	return true
}

// isRequest recognizes the first packet of a POST, also within TLS 1.3: a client's
// first record of data, where that begins a packet; its last one of the handshake
// follows another.
func isRequest(payload []byte) bool {
	const applicationData = 0x17
	return strings.HasPrefix(string(payload[:min(4, len(payload))]), "POST") || len(payload) > 0 && payload[0] == applicationData
}
