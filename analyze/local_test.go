package analyze

import (
	"net/netip"
	"slices"
	"strconv"
	"testing"

	"jindan/capture"
)

// frame is packets between two addresses as a capture shows them, there and back.
type frame struct {
	src, dst       string
	ttl, back      uint8
	srcMAC, dstMAC uint32
	there, reply   capture.Direction
	n              int
}

func TestLocal(t *testing.T) {
	const (
		in, out = capture.DirInbound, capture.DirOutbound
		host    = 0x0a000001 // stations
		host2   = 0x0a000002
		router  = 0x0b000001
		router2 = 0x0b000002
	)
	for _, tc := range []struct {
		name   string
		option []string
		frames []frame
		by     LocalBy
		want   []string
	}{
		{"cooked: one address serves, another calls", nil, []frame{
			{"198.51.100.7", "10.60.4.36", 63, 64, 0, 0, in, out, 50},
			{"10.60.5.1", "10.60.8.3", 64, 63, 0, 0, out, in, 20},
		}, LocalByDirection, []string{"10.60.4.36", "10.60.5.1"}},
		{"cooked: the loopback interface says nothing of directions, and is this host's", nil, []frame{
			{"198.51.100.7", "10.60.4.36", 63, 64, 0, 0, in, out, 50},
			{"127.0.0.1", "127.0.0.53", 64, 64, 0, 0, capture.DirOther, capture.DirOther, 90},
		}, LocalByDirection, []string{"10.60.4.36", "127.0.0.1", "127.0.0.53"}},
		{"named: the loopback interface is this host's, too", []string{"10.60.4.36/32"}, []frame{
			{"198.51.100.7", "10.60.4.36", 63, 64, 0, 0, 0, 0, 50},
			{"127.0.0.1", "127.0.0.53", 64, 64, 0, 0, 0, 0, 90},
		}, LocalByOption, []string{"10.60.4.36", "127.0.0.1", "127.0.0.53"}},
		{"named: one loopback address of several that stand for hosts", []string{"127.0.0.7/32"}, []frame{
			{"127.0.0.9", "127.0.0.7", 64, 64, 0, 0, 0, 0, 50},
			{"127.0.0.7", "127.0.0.53", 64, 64, 0, 0, 0, 0, 90},
		}, LocalByOption, []string{"127.0.0.7"}},
		{"cooked: a box that only forwards has no address in it", nil, []frame{
			{"198.51.100.7", "10.60.4.36", 63, 64, 0, 0, in, in, 50},
			{"198.51.100.7", "10.60.4.36", 62, 63, 0, 0, out, out, 50},
		}, LocalNone, nil},
		{"cooked: a box that translates addresses is its own end", nil, []frame{
			{"198.51.100.7", "203.0.113.80", 63, 63, 0, 0, in, out, 50},
			{"198.51.100.7", "10.1.0.5", 62, 64, 0, 0, out, in, 50},
		}, LocalByDirection, []string{"203.0.113.80"}},
		{"Ethernet: the station of every frame that sends no forwarded packets", nil, []frame{
			{"198.51.100.7", "10.60.4.36", 57, 64, router, host, 0, 0, 50},
			{"203.0.113.9", "10.60.4.36", 49, 64, router, host, 0, 0, 50},
			{"10.60.5.1", "10.60.8.3", 64, 63, host, router, 0, 0, 20},
		}, LocalByLink, []string{"10.60.4.36", "10.60.5.1"}},
		{"Ethernet: neighbours on the link", nil, []frame{
			{"10.60.4.7", "10.60.4.36", 64, 64, 0x0c000001, host, 0, 0, 50},
			{"10.60.4.8", "10.60.4.36", 64, 64, 0x0c000002, host, 0, 0, 50},
		}, LocalByLink, []string{"10.60.4.36"}},
		{"two interfaces, two routers: what has passed no router", nil, []frame{
			{"fddd:1::49", "fddd:4::37", 61, 64, router, host, 0, 0, 50},
			{"fddd:5::29", "fddd:8::3", 64, 63, host2, router2, 0, 0, 20},
		}, LocalByCommon, []string{"fddd:4::37", "fddd:5::29"}},
		{"on the way: both ends are elsewhere", nil, []frame{
			{"198.51.100.7", "10.60.4.36", 57, 61, router, router2, 0, 0, 50},
			{"203.0.113.9", "10.60.4.36", 57, 61, router, router2, 0, 0, 50},
		}, LocalNone, nil},
		{"no hop counts to tell by: the address of nearly all packets", nil, []frame{
			{"198.51.100.7", "10.60.4.36", 0, 0, 0, 0, 0, 0, 50},
			{"203.0.113.9", "10.60.4.36", 0, 0, 0, 0, 0, 0, 50},
		}, LocalByCommon, []string{"10.60.4.36"}},
		{"a port of a switch: many hosts", nil, []frame{
			{"10.0.0.1", "10.0.0.2", 64, 64, 1, 2, 0, 0, 50},
			{"10.0.0.3", "10.0.0.4", 64, 64, 3, 4, 0, 0, 50},
		}, LocalNone, nil},
		{"--local names one of two addresses; the capture knows the other", []string{"10.60.4.36/32"}, []frame{
			{"198.51.100.7", "10.60.4.36", 63, 64, 0, 0, in, out, 50},
			{"10.60.5.1", "10.60.8.3", 64, 63, 0, 0, out, in, 20},
		}, LocalByOption, []string{"10.60.4.36", "10.60.5.1"}},
		{"--local with a prefix", []string{"10.60.0.0/21"}, []frame{
			{"198.51.100.7", "10.60.4.36", 0, 0, 0, 0, 0, 0, 50},
			{"10.60.5.1", "10.60.8.3", 0, 0, 0, 0, 0, 0, 20},
		}, LocalByOption, []string{"10.60.4.36", "10.60.5.1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var l localFinder
			var option []netip.Prefix
			for _, o := range tc.option {
				option = append(option, netip.MustParsePrefix(o))
			}
			l.init(option, "")
			for _, f := range tc.frames {
				src, dst := capture.AddrFrom(netip.MustParseAddr(f.src)), capture.AddrFrom(netip.MustParseAddr(f.dst))
				for range f.n {
					p := capture.Packet{Proto: capture.ProtoTCP, TTL: f.ttl, Dir: f.there, SrcMAC: f.srcMAC, DstMAC: f.dstMAC}
					p.Src.Addr, p.Dst.Addr = src, dst
					l.packet(&p)
					q := capture.Packet{Proto: capture.ProtoTCP, TTL: f.back, Dir: f.reply, SrcMAC: f.dstMAC, DstMAC: f.srcMAC}
					q.Src.Addr, q.Dst.Addr = dst, src
					l.packet(&q)
				}
			}
			got := l.get()
			list := got.List()
			slices.Sort(list)
			if got.By != tc.by || !slices.Equal(list, tc.want) {
				t.Errorf("%v by %s, expected %v by %s", list, got.By, tc.want, tc.by)
			}
			for i := range tc.want {
				a := capture.AddrFrom(netip.MustParseAddr(tc.want[i]))
				if !got.Is(a) || got.Host(a) != got.Addr {
					t.Errorf("%s is not known as this host", tc.want[i])
				}
			}
		})
	}
}

// Addresses of another host: one station sends for both, and what it sends has passed no router.
func TestHosts(t *testing.T) {
	var l localFinder
	l.init(nil, "")
	say := func(src, dst string, ttl uint8, from, to uint32) {
		p := capture.Packet{Proto: capture.ProtoTCP, TTL: ttl, SrcMAC: from, DstMAC: to}
		p.Src.Addr, p.Dst.Addr = capture.AddrFrom(netip.MustParseAddr(src)), capture.AddrFrom(netip.MustParseAddr(dst))
		l.packet(&p)
	}
	for range 20 {
		say("10.0.0.1", "10.0.0.9", 64, 1, 9)
		say("10.0.1.1", "10.0.0.9", 64, 1, 9)
		say("192.0.2.1", "10.0.0.8", 60, 7, 8)
		say("192.0.2.2", "10.0.0.8", 60, 7, 8)
	}
	host := func(a string) capture.Addr { return l.get().Host(capture.AddrFrom(netip.MustParseAddr(a))) }
	if host("10.0.0.1") != host("10.0.1.1") {
		t.Error("two addresses of one station are two hosts")
	}
	if host("192.0.2.1") == host("192.0.2.2") {
		t.Error("what a router passes on is one host")
	}
}

// A cooked header has the sender's address only. On a box that forwards every packet is seen twice, once with the box's own address and
// one hop less.
func TestHostsOfCookedHeaders(t *testing.T) {
	var l localFinder
	l.init(nil, "")
	say := func(src, dst string, ttl uint8, from uint32) {
		p := capture.Packet{Proto: capture.ProtoTCP, TTL: ttl, MACs: from, Dir: capture.DirInbound}
		p.Src.Addr, p.Dst.Addr = capture.AddrFrom(netip.MustParseAddr(src)), capture.AddrFrom(netip.MustParseAddr(dst))
		l.packet(&p)
		p.TTL, p.MACs, p.Dir = ttl-1, 99, capture.DirOutbound
		l.packet(&p)
	}
	for range 20 {
		say("10.0.0.1", "10.0.0.9", 64, 1)
		say("10.0.1.1", "10.0.0.9", 64, 1)
		say("192.0.2.1", "10.0.0.8", 60, 7)
		say("192.0.2.2", "10.0.0.8", 60, 7)
	}
	host := func(a string) capture.Addr { return l.get().Host(capture.AddrFrom(netip.MustParseAddr(a))) }
	if l.get().Known() || host("10.0.0.1") != host("10.0.1.1") {
		t.Error("two addresses of one station are two hosts")
	}
	if host("192.0.2.1") == host("192.0.2.2") || host("10.0.0.9") == host("10.0.0.8") {
		t.Error("what a router passes on, or who never sends, is one host")
	}
}

// What a box passes on to one address only, by another destination, belongs to that address's host; what it spreads over two belongs
// to neither.
func TestHostsBehindATranslatedAddress(t *testing.T) {
	const vip, spread = "203.0.113.80", "203.0.113.81"
	at := func(s string) capture.Addr { return capture.AddrFrom(netip.MustParseAddr(s)) }
	for _, marked := range []bool{true, false} {
		var l localFinder
		l.init(nil, "")
		seq := uint32(0)
		say := func(src, dst, snat, dnat string) {
			seq += 1000
			p := capture.Packet{Proto: capture.ProtoTCP, Flags: capture.SYN, Seq: seq, TTL: 60}
			if marked {
				p.Dir = capture.DirInbound
			}
			p.Src.Addr, p.Dst.Addr = at(src), at(dst)
			l.packet(&p)
			p.Src.Addr, p.Dst.Addr, p.TTL = at(snat), at(dnat), 59
			if marked {
				p.Dir = capture.DirOutbound
			}
			l.packet(&p)
		}
		for i := range 20 {
			client := "198.51.100." + strconv.Itoa(1+i)
			say(client, vip, client, "10.0.0.5")
			say(client, spread, "10.0.9.1", "10.0.0."+strconv.Itoa(6+i*7%3%2))
		}
		host := func(a string) capture.Addr { return l.get().Host(at(a)) }
		if host(vip) != host("10.0.0.5") {
			t.Errorf("marked %v: a virtual address and what is behind it are two hosts", marked)
		}
		if host(spread) == host("10.0.0.6") || host(spread) == host("10.0.0.7") || host("10.0.0.6") == host("10.0.0.7") {
			t.Errorf("marked %v: two members are one host", marked)
		}
		if x := l.get(); x.Is(at("10.0.0.5")) {
			t.Errorf("marked %v: what is behind a box is taken for the box", marked)
		}
	}
}
