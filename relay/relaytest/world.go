package relaytest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// World is a zone, an authority and hosts. All hosts share one port, each on
// its own address, so that one delivery.port fits all.
type World struct {
	Zone *Zone
	CA   *CA
	Port int // of every host

	block [3]byte // 127.x.y, the first of four such

	mu    sync.Mutex
	next  int
	hosts []*Host
	prefs map[string]uint16 // of the last MX of a domain
	hold  net.Listener      // keeps the port ours on the block's first address
}

// NewWorld makes an empty world on a block of loopback addresses that nobody
// else uses. Close it.
func NewWorld() (*World, error) {
	ca, err := NewCA()
	if err != nil {
		return nil, err
	}
	w := &World{CA: ca, next: 2, prefs: map[string]uint16{}}
	for range 20 {
		w.block = [3]byte{127, byte(1 + rand.N(250)), byte(rand.N(250 - blocks))}
		if w.hold, err = net.Listen("tcp", netip.AddrPortFrom(w.address(1), 0).String()); err == nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("no loopback block to be had: %w", err)
	}
	w.Port = w.hold.Addr().(*net.TCPAddr).Port
	if w.Zone, err = NewZone(netip.AddrPortFrom(w.address(1), 0)); err != nil {
		w.hold.Close()
		return nil, err
	}
	return w, nil
}

// blocks is how many blocks of 256 addresses the hosts of a world may fill.
const blocks = 4

func (w *World) address(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{w.block[0], w.block[1], w.block[2] + byte(n>>8), byte(n)})
}

// AddHost starts a host, and registers its address and an MX record of its
// parent domain: mx1.example.test becomes the next host of example.test. The
// hosts of a domain stand in the order in which they were added, preferences
// 10, 20 and so on. Connections meet the scripts one after the other, the
// last one for good.
func (w *World) AddHost(name string, scripts ...Script) (*Host, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var h *Host
	addr, err := w.bind(func(addr netip.AddrPort) (err error) {
		h, err = newHost(name, addr, w.CA, scripts)
		return err
	})
	if err != nil {
		return nil, err
	}
	w.hosts = append(w.hosts, h)
	w.register(name, addr)
	return h, nil
}

// Listen gives a listener for a host that the caller plays. It registers the address,
// and the host as the only MX of the domains. The caller closes it.
func (w *World) Listen(name string, domains ...string) (ln net.Listener, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	addr, err := w.bind(func(addr netip.AddrPort) (err error) {
		ln, err = net.Listen("tcp", addr.String())
		return err
	})
	if err != nil {
		return nil, err
	}
	w.Zone.A(name, addr)
	for _, d := range domains {
		w.Zone.MX(d, name, 10)
	}
	return ln, nil
}

// bind tries one address after the other, until nobody else listens there.
func (w *World) bind(listen func(netip.AddrPort) error) (netip.Addr, error) {
	var lastErr error
	for w.next < blocks*256 {
		addr := netip.AddrPortFrom(w.address(w.next), uint16(w.Port))
		w.next++
		err := listen(addr)
		var op *net.OpError
		if err == nil || !errors.As(err, &op) {
			return addr.Addr(), err
		}
		lastErr = err
	}
	return netip.Addr{}, fmt.Errorf("no address left in the block: %w", lastErr)
}

// Hosts are the hosts that were started so far.
func (w *World) Hosts() []*Host {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.hosts)
}

// AddDeadHost registers a host that refuses every connection (row A1) and
// gives its address.
func (w *World) AddDeadHost(name string) netip.AddrPort {
	w.mu.Lock()
	defer w.mu.Unlock()
	addr := w.address(w.next)
	w.next++
	w.register(name, addr)
	return netip.AddrPortFrom(addr, uint16(w.Port))
}

func (w *World) register(name string, addr netip.Addr) {
	w.Zone.A(name, addr)
	if _, parent, ok := strings.Cut(name, "."); ok {
		w.prefs[parent] += 10
		w.Zone.MX(parent, name, w.prefs[parent])
	}
}

// Close stops everything.
func (w *World) Close() {
	w.mu.Lock()
	hosts := w.hosts
	w.mu.Unlock()
	for _, h := range hosts {
		h.Close()
	}
	w.Zone.Close()
	w.hold.Close()
}
