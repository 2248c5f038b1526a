package detect

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/analyze/cause"
	"jindan/rules"
)

// A resolver whose forwarder hangs says SERVFAIL late, or not at all: one fault with one cause, the forwarder, whether the resolver serves others, or
// its own host by a loopback address. Without a forwarder in sight the resolver is the cause.
func TestHangingForwarder(t *testing.T) {
	for _, tc := range []struct {
		name, resolver, client string
		forwards               bool
		root                   string
	}{
		{"for others", "192.0.2.1:53", "192.0.2.9", true, "dns-unanswered 198.51.100.53"},
		{"for itself", "127.0.0.1:53", "127.0.0.1", true, "dns-unanswered 198.51.100.53"},
		{"unseen", "192.0.2.1:53", "192.0.2.9", false, "dns-errors 192.0.2.1"},
	} {
		for _, wait := range []time.Duration{400 * ms, 2 * sec, 10 * sec} {
			t.Run(fmt.Sprintf("%s, %v", tc.name, wait), func(t *testing.T) {
				n := new(network)
				every(0, 100*sec, 200*ms, func(at time.Duration, i int) {
					name := fmt.Sprintf("n%d.test", i%40)
					forward := n.from("192.0.2.1")
					if at < 40*sec {
						if tc.forwards {
							n.queryFrom(at+ms, forward, "198.51.100.53:53", name, 8*ms, noError, 80)
						}
						n.query(at, tc.client, tc.resolver, name, 10*ms, noError, 80)
						return
					}
					for k := range time.Duration(3) {
						if tc.forwards {
							n.queryFrom(at+ms+k*wait/3, forward, "198.51.100.53:53", name, -1, noError, 80)
						}
					}
					n.query(at, tc.client, tc.resolver, name, wait, servFail, 80)
				})
				if roots := n.roots(t, "192.0.2.1"); !slices.Equal(roots, []string{tc.root}) {
					t.Errorf("roots %q, want %q", roots, tc.root)
				}
			})
		}
	}
}

// roots diagnoses what n sent, and gives the rule and the peer of each root.
func (n *network) roots(t *testing.T, local string) (roots []string) {
	t.Helper()
	set, err := rules.Load(Features())
	if err != nil {
		t.Fatal(err)
	}
	n.causes = cause.New(set)
	d := n.run(t, All(), local)
	for _, f := range d.Findings {
		if f.Role == analyze.Root {
			roots = append(roots, f.Rule+" "+f.Subject.Peer)
		}
	}
	return roots
}
