package flow

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"jindan/capture"
)

func TestStory(t *testing.T) {
	names := map[ChapterKind]string{Opening: "opening", Unopened: "unopened", RefusedOpening: "refused", Challenged: "challenged", StoodStill: "still",
		WindowShut: "shut", Waited: "waited", Silence: "silence", Finned: "fin", Rejected: "rst", AfterRST: "after"}
	window := func(n uint16) func(*capture.Packet) { return func(p *capture.Packet) { p.Window = n } }
	for _, tc := range []struct {
		name string
		run  func(*talk)
		want string
		ill  bool
	}{
		{"a SYN repeated in vain", func(k *talk) {
			k.send(0, Client, syn, 0, 0, 0)
			for _, d := range []time.Duration{1, 2, 4, 8} {
				k.send(d*time.Second, Client, syn, 0, 0, 0)
			}
		}, "unopened client 15s n4", true},
		{"data repeated in vain to the end", func(k *talk) {
			k.open()
			k.send(ms, Client, ack, 1, 1, 100)
			k.send(ms, Server, ack, 1, 101, 50)
			k.send(0, Client, ack, 101, 51, 0)
			k.send(20*time.Second, Client, ack, 101, 51, 100)
			for _, d := range []time.Duration{1, 2, 4} {
				k.send(d*time.Second, Client, ack, 101, 51, 100)
			}
		}, "opening client 5ms; silence client 20s; still client 7s n3 open", true},
		{"an outage, with acknowledgements that bring nothing new", func(k *talk) {
			k.open()
			k.send(ms, Client, ack, 1, 1, 1000)
			k.send(ms, Server, ack, 1, 1, 0)
			k.send(2*time.Second, Client, ack, 1, 1, 1000)
			k.send(4*time.Second, Server, ack, 1, 1001, 0)
		}, "opening client 5ms; still client 6.001s n1 heard1", true},
		{"a repetition is no answer", func(k *talk) {
			k.open()
			k.send(ms, Server, ack, 1, 1, 1000)
			k.send(ms, Client, ack, 1, 1, 100)
			k.send(ms, Server, ack, 1001, 101, 0)
			k.send(8*time.Second, Server, ack, 1, 101, 1000)
			k.send(16*time.Second, Server, ack, 1, 101, 1000)
		}, "opening client 5ms; still server 24.002s n2 heard1 open", true},
		{"a closed window, and probes", func(k *talk) {
			k.open()
			k.send(ms, Client, ack, 1, 1, 100)
			k.send(ms, Server, ack, 1, 101, 0, window(0))
			k.send(3*time.Second, Client, ack, 100, 1, 0)
			k.send(ms, Server, ack, 1, 101, 0, window(0))
			k.send(9*time.Second, Server, ack, 1, 101, 0)
		}, "opening client 5ms; shut server 12.001s n1", true},
		{"a slow answer, a FIN that is repeated, a foreign RST, and what comes after", func(k *talk) {
			k.open()
			k.send(ms, Client, ack, 1, 1, 100)
			k.send(ms, Server, ack, 1, 101, 0)
			k.send(6*time.Second, Server, ack, 1, 101, 50)
			k.send(ms, Client, ack, 101, 51, 0)
			k.send(ms, Client, fin, 101, 51, 0)
			k.send(ms*300, Client, fin, 101, 51, 0)
			k.send(ms, Server, rst, 51, 102, 0, func(p *capture.Packet) { p.TTL = 250 })
			k.send(ms, Client, ack, 102, 51, 0)
		}, "opening client 5ms; waited server 6.001s; fin client 300ms n1; rst server 0s ttl250/64; after server 0s heard1", false},
		{"an older connection on the same ports", func(k *talk) {
			k.send(0, Client, syn, 0, 0, 0)
			k.send(ms, Server, ack, 999_999, 3_000_000, 0)
			k.send(ms, Client, rst, 3_000_000, 0, 0)
			k.send(10*ms, Client, syn, 0, 0, 0)
			k.send(ms, Server, synack, 0, 1, 0)
			k.send(ms, Client, ack, 1, 1, 0)
		}, "opening client 13ms n1; challenged server 0s n1", false},
		{"one direction only", func(k *talk) {
			k.send(0, Client, ack, 1, 1, 100)
			k.send(10*time.Second, Client, ack, 101, 1, 100)
		}, "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := newTalk()
			k.t = New(Options{Story: true})
			k.id = 1
			tc.run(k)
			var got []string
			ill := false
			k.t.Live(func(c *Conn) {
				st := k.t.Story(c)
				st.Close(k.at)
				ill = ill || st.Fared(Ill{Still: 5 * time.Second, Shut: 10 * time.Second, Unanswered: 3 * time.Second}) != nil
				for i := range st.Chapters {
					x := &st.Chapters[i]
					s := fmt.Sprintf("%s %s %v", names[x.Kind], sideNames[x.Side], x.Length())
					if x.N > 0 {
						s += fmt.Sprintf(" n%d", x.N)
					}
					if x.Heard > 0 {
						s += fmt.Sprintf(" heard%d", x.Heard)
					}
					if x.TTL > 0 {
						s += fmt.Sprintf(" ttl%d/%d", x.TTL, x.UsualTTL)
					}
					if x.Open && x.Kind != Unopened {
						s += " open"
					}
					got = append(got, s)
				}
			})
			if s := strings.Join(got, "; "); s != tc.want || ill != tc.ill {
				t.Errorf("story %q, ill %v", s, ill)
			}
		})
	}
}
