package flow

import (
	"testing"
	"time"

	"jindan/capture"
)

// What is said after a reset, or in answer to a SYN, that ends nothing.
func TestOddEnds(t *testing.T) {
	all := []Kind{SynRepeat, SynAckRepeat, Established, Refused, Reset, Closed, SynChallenged, ResetIgnored, ResetLoop, AfterReset, Retransmit}
	for _, tc := range []struct {
		name string
		run  func(*talk)
		want []string
	}{
		{"challenged, and nobody resets: the repeats of the SYN count", func(k *talk) {
			k.send(0, Client, syn, 0, 0, 0)
			k.send(ms, Server, ack, 999_999, 3_000_000, 0)
			k.send(time.Second, Client, syn, 0, 0, 0)
			k.send(ms, Server, ack, 999_999, 3_000_000, 0)
		}, []string{"challenged", "syn-repeat", "challenged"}},
		{"challenged, reset, asked again at once: none was lost", func(k *talk) {
			k.send(0, Client, syn, 0, 0, 0)
			k.send(ms, Server, ack, 999_999, 3_000_000, 0)
			k.send(ms, Client, rst, 3_000_000, 0, 0)
			k.send(10*ms, Client, syn, 0, 0, 0)
			k.send(ms, Server, synack, 0, 1, 0)
			k.send(ms, Client, ack, 1, 1, 0)
		}, []string{"challenged", "established"}},
		{"challenged by a connection that goes on: two callers have got the same ports of a NAT", func(k *talk) {
			k.open()
			k.send(ms, Client, ack, 1, 1, 10)
			k.send(ms, Server, ack, 1, 11, 20)
			k.send(time.Second, Client, syn, 5_000_000, 0, 0)
			k.send(ms, Server, ack, 21, 11, 0)
			k.send(500*ms, Client, ack, 11, 21, 10)
			k.send(ms, Server, ack, 21, 21, 20)
			k.send(500*ms, Client, syn, 5_000_000, 0, 0)
			k.send(ms, Server, ack, 41, 21, 0)
			k.send(10*time.Second, Client, ack, 21, 41, 10)
			k.send(ms, Server, ack, 41, 31, 20)
		}, []string{"established", "closed", "challenged", "syn-repeat", "challenged", "closed"}},
		{"a RST that does not acknowledge the SYN", func(k *talk) {
			k.send(0, Client, syn, 0, 0, 0)
			k.send(ms, Server, rst|ack, 0, 5_000_000, 0)
			k.send(time.Second, Client, syn, 0, 0, 0)
			k.send(ms, Server, synack, 0, 1, 0)
			k.send(ms, Client, ack, 1, 1, 0)
		}, []string{"reset-ignored", "syn-repeat", "established"}},
		{"a RST outside any window", func(k *talk) {
			k.open()
			k.send(ms, Client, ack, 1, 1, 10)
			k.send(ms, Server, rst|ack, 900_000_000, 11, 0)
			k.send(ms, Server, ack, 1, 11, 20)
		}, []string{"established", "reset-ignored"}},
		{"both open at once", func(k *talk) {
			k.send(0, Client, syn, 0, 0, 0)
			k.send(0, Server, syn, 0, 0, 0)
			k.send(5*ms, Client, synack, 0, 1, 0)
			k.send(0, Server, synack, 0, 1, 0)
			k.send(5*ms, Client, ack, 1, 1, 0)
			k.send(0, Server, ack, 1, 1, 0)
		}, []string{"established"}},
		{"a loop of RST and challenge ACK", func(k *talk) {
			k.open()
			k.send(ms, Client, ack, 1, 1, 10)
			for range 9 {
				k.send(ms, Client, rst, 100, 0, 0)
				k.send(ms, Server, ack, 1, 11, 0)
			}
		}, []string{"established", "reset abort", "closed abort", "after-reset", "after-reset", "after-reset", "reset-loop", "after-reset", "reset-loop"}},
		{"what was on its way when the client reset is no loop", func(k *talk) {
			k.open()
			k.send(ms, Client, ack, 1, 1, 10)
			for i := range uint32(8) {
				k.send(ms, Client, rst, 11, 0, 0)
				k.send(ms, Server, ack, 1+i*1000, 11, 1000)
			}
		}, []string{"established", "reset abort", "closed abort", "after-reset 1000", "after-reset 1000", "after-reset 1000", "after-reset 1000"}},
		{"acknowledgements on their way are none", func(k *talk) {
			k.open()
			k.send(ms, Client, ack, 1, 1, 1000)
			k.send(ms, Client, ack, 1001, 1, 1000)
			for i := range uint32(8) {
				k.send(ms, Client, rst, 2001, 0, 0)
				k.send(ms, Server, ack, 1, 1+i*100, 0)
			}
		}, []string{"established", "reset abort", "closed abort", "after-reset", "after-reset", "after-reset", "after-reset"}},
		{"FINs to a peer that has gone", func(k *talk) {
			k.open()
			for range 6 {
				k.send(time.Second, Client, fin, 1, 1, 0)
			}
		}, []string{"established", "retransmit closing", "retransmit closing", "retransmit closing", "retransmit closing", "retransmit closing"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := newTalk(all...)
			tc.run(k)
			k.want(t, tc.want...)
		})
	}
}

// A SYN-ACK from another address than asked, as a NAT that is undone wrongly makes it.
func TestAnswerFromElsewhere(t *testing.T) {
	k := newTalk(SynAckElsewhere, SynRepeat, Established)
	var from capture.Endpoint
	emit := k.t.o.Emit
	k.t.o.Emit = func(e *Event) {
		if e.Kind == SynAckElsewhere {
			from = e.From
		}
		emit(e)
	}
	other := func(p *capture.Packet) { p.Src.Addr[15]++ }
	k.send(0, Client, syn, 7000, 0, 0)
	k.send(ms, Server, synack, 0, 7001, 0, other, func(p *capture.Packet) { p.Dst.Port++ }) // to another connection
	k.send(ms, Server, synack, 0, 7001, 0, other)
	k.send(time.Second, Client, syn, 7000, 0, 0)
	k.send(time.Second+ms, Server, synack, 0, 7001, 0, other, func(p *capture.Packet) { p.IPID = 99 })
	k.want(t, "elsewhere", "syn-repeat", "elsewhere")
	if want := k.s.Addr[15] + 1; from.Addr[15] != want {
		t.Errorf("from %s, want an address that ends in %d", from, want)
	}
}

// Data in a SYN (RFC 7413): acknowledged with it, sent again after it, or followed by more in a capture that lacks the answer.
func TestDataInSYN(t *testing.T) {
	for _, tc := range []struct {
		name  string
		run   func(*talk)
		bytes uint64
	}{
		{"acknowledged", func(k *talk) {
			k.send(0, Client, syn, 0, 0, 300)
			k.send(ms, Server, synack, 0, 301, 0)
			k.send(ms, Client, ack, 301, 1, 0)
			k.send(3*ms, Server, ack, 1, 301, 700)
		}, 300},
		{"not acknowledged: it comes again", func(k *talk) {
			k.send(0, Client, syn, 0, 0, 300)
			k.send(ms, Server, synack, 0, 1, 0)
			k.send(ms, Client, ack, 1, 1, 300)
			k.send(3*ms, Server, ack, 1, 301, 700)
		}, 300},
		{"the answer is not in the capture", func(k *talk) {
			k.send(0, Client, syn, 0, 0, 300)
			k.send(ms, Client, ack, 301, 1, 100)
			k.send(3*ms, Server, ack, 1, 401, 700)
		}, 400},
		{"the SYN lost, asked again without data", func(k *talk) {
			k.send(0, Client, syn, 0, 0, 300)
			k.send(time.Second, Client, syn, 0, 0, 0)
			k.send(ms, Server, synack, 0, 1, 0)
			k.send(ms, Client, ack, 1, 1, 300)
			k.send(3*ms, Server, ack, 1, 301, 700)
		}, 300},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := newTalk(Retransmit, HoleOpened, HoleAcked, Request, Response)
			tc.run(k)
			if got := k.last.Bytes(Client); got != tc.bytes {
				t.Errorf("%d bytes, want %d", got, tc.bytes)
			}
			if len(k.events) != 2 {
				t.Errorf("events %q, want a request and its answer", k.events)
			}
		})
	}
}
