//go:build linux

package host

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	// maxTracked bounds the routes, and the neighbours, whose last state is known. The kernel's own limit of neighbours is
	// 1,024 (net.ipv4.neigh.default.gc_thresh3); a router with a full table has more routes, and its changes are then told
	// without what was before.
	maxTracked = 16384
	// resubscribe is the pause before a broken subscription is made again.
	resubscribe = time.Second
	// receiveBuffer holds some 1,000 updates, in bytes; beyond, the kernel says ENOBUFS, and the lists are compared anew.
	receiveBuffer = 1 << 20
)

// errEnded: a subscription broke; its reader has said why.
var errEnded = errors.New("the subscription ended")

// watcher turns rtnetlink updates of a network namespace into changes.
type watcher struct {
	ns     netns.NsHandle
	queue  *queue
	links  tracker[int, linkState]
	routes tracker[routeKey, routeState]
	neighs tracker[neighKey, neighState]
}

func newWatcher(ns netns.NsHandle, q *queue) *watcher {
	full := func() { q.fail(fmt.Errorf("more than %d routes or neighbours: not all are followed", maxTracked)) }
	return &watcher{ns: ns, queue: q,
		links:  tracker[int, linkState]{map[int]linkState{}, maxTracked, false, tellLink, q.change, full},
		routes: tracker[routeKey, routeState]{map[routeKey]routeState{}, maxTracked, false, tellRoute, q.change, full},
		neighs: tracker[neighKey, neighState]{map[neighKey]neighState{}, maxTracked, false, tellNeigh, q.change, full}}
}

// run watches until ctx ends. ready is closed when the first state is known, or could not be had.
func (w *watcher) run(ctx context.Context, ready chan<- struct{}) {
	var once sync.Once
	isReady := func() { once.Do(func() { close(ready) }) }
	for {
		err := w.watch(ctx, isReady)
		isReady()
		if ctx.Err() != nil {
			return
		}
		if !errors.Is(err, errEnded) {
			w.queue.fail(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(resubscribe):
		}
	}
}

// watch subscribes, then lists: what happens in between arrives as an update that repeats the list.
func (w *watcher) watch(ctx context.Context, ready func()) error {
	done := make(chan struct{})
	var closing atomic.Bool
	onError := func(err error) {
		if !closing.Load() { // closing the socket is an error to the reader
			w.queue.fail(fmt.Errorf("netlink updates: %w", err))
		}
	}
	links, routes, neighs := make(chan netlink.LinkUpdate), make(chan netlink.RouteUpdate), make(chan netlink.NeighUpdate)
	var readers []func() // wait for the library's readers to end
	defer func() {
		closing.Store(true)
		close(done)
		for _, end := range readers {
			end()
		}
	}()
	err := netlink.LinkSubscribeWithOptions(links, done, netlink.LinkSubscribeOptions{
		Namespace: &w.ns, ErrorCallback: onError, ReceiveBufferSize: receiveBuffer})
	if err != nil {
		return fmt.Errorf("watch links: %w", err)
	}
	readers = append(readers, func() { drain(links) })
	err = netlink.RouteSubscribeWithOptions(routes, done, netlink.RouteSubscribeOptions{
		Namespace: &w.ns, ErrorCallback: onError, ReceiveBufferSize: receiveBuffer})
	if err != nil {
		return fmt.Errorf("watch routes: %w", err)
	}
	readers = append(readers, func() { drain(routes) })
	err = netlink.NeighSubscribeWithOptions(neighs, done, netlink.NeighSubscribeOptions{
		Namespace: &w.ns, ErrorCallback: onError, ReceiveBufferSize: receiveBuffer})
	if err != nil {
		return fmt.Errorf("watch neighbours: %w", err)
	}
	readers = append(readers, func() { drain(neighs) })

	if err := w.list(); err != nil {
		return err
	}
	ready()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case u, ok := <-links:
			if !ok {
				return errEnded
			}
			w.link(&u)
		case u, ok := <-routes:
			if !ok {
				return errEnded
			}
			w.route(&u)
		case u, ok := <-neighs:
			if !ok {
				return errEnded
			}
			w.neigh(&u)
		}
	}
}

// list compares what is with what was known.
func (w *watcher) list() error {
	h, err := netlink.NewHandleAt(w.ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open a netlink socket: %w", err)
	}
	defer h.Close()
	if err := h.SetSocketTimeout(answerTime); err != nil {
		return fmt.Errorf("limit the time of netlink requests: %w", err)
	}
	list, err := h.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	links := map[int]linkState{}
	for _, l := range list {
		a := l.Attrs()
		links[a.Index] = linkState{a.Name, a.MTU, up(a)}
	}
	w.links.resync(links)

	routes := map[routeKey]routeState{}
	all := &netlink.Route{Table: unix.RT_TABLE_UNSPEC} // not only the main table
	err = h.RouteListFilteredIter(netlink.FAMILY_ALL, all, netlink.RT_FILTER_TABLE, func(r netlink.Route) bool {
		if !ownRoute(&r) {
			k, v := routeOf(&r, w.name)
			routes[k] = v
		}
		return len(routes) < maxTracked
	})
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	w.routes.resync(routes)

	found, err := h.NeighList(0, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list neighbours: %w", err)
	}
	neighs := map[neighKey]neighState{}
	for i := range found {
		if k, v, ok := neighOf(&found[i], w.name, w.neighs.state); ok {
			neighs[k] = v
		}
	}
	w.neighs.resync(neighs)
	return nil
}

func (w *watcher) name(index int) string {
	if l, ok := w.links.state[index]; ok {
		return l.name
	}
	return "if" + strconv.Itoa(index)
}

func (w *watcher) link(u *netlink.LinkUpdate) {
	if u.Family != unix.AF_UNSPEC { // AF_BRIDGE: of a port in its bridge, whose deletion is not that of the interface
		return
	}
	a := u.Attrs()
	if u.Header.Type == unix.RTM_DELLINK {
		w.links.remove(a.Index)
	} else {
		w.links.set(a.Index, linkState{a.Name, a.MTU, up(a)})
	}
	if u.Header.Type == unix.RTM_DELLINK || a.RawFlags&unix.IFF_UP == 0 {
		// The kernel drops the IPv4 routes over it without a word (fib_disable_ip): that they come back is news.
		for k, v := range w.routes.state {
			if v.link == a.Index {
				delete(w.routes.state, k)
			}
		}
	}
}

func (w *watcher) route(u *netlink.RouteUpdate) {
	if ownRoute(&u.Route) {
		return
	}
	k, v := routeOf(&u.Route, w.name)
	if u.Type == unix.RTM_DELROUTE {
		w.routes.remove(k)
	} else {
		w.routes.set(k, v)
	}
}

func (w *watcher) neigh(u *netlink.NeighUpdate) {
	k, v, ok := neighOf(&u.Neigh, w.name, w.neighs.state)
	switch {
	case u.Type == unix.RTM_DELNEIGH:
		w.neighs.remove(k)
	case ok:
		w.neighs.set(k, v)
	}
}

// drain lets the library's reader end, which may be about to send.
func drain[T any](ch <-chan T) {
	for ok := true; ok; {
		_, ok = <-ch
	}
}
