//go:build linux

package host

import (
	"slices"
	"testing"

	"jindan/capture"
)

// What changed while updates were lost is told by the list that follows; the first list tells nothing.
func TestTrackerResync(t *testing.T) {
	var told []string
	full := 0
	tr := tracker[int, linkState]{state: map[int]linkState{}, max: 4, tell: tellLink,
		emit: func(c capture.Change) { told = append(told, c.What+" "+c.Detail) }, full: func() { full++ }}
	tr.resync(map[int]linkState{1: {"lo", 65536, true}, 2: {"eth0", 1500, true}, 3: {"eth1", 1500, false}})
	if len(told) != 0 {
		t.Errorf("the first list tells %v", told)
	}
	tr.resync(map[int]linkState{1: {"lo", 65536, true}, 3: {"eth1", 1500, true}, 4: {"eth2", 1500, false}})
	tr.set(3, linkState{"wan", 1500, true}) // a new name alone
	slices.Sort(told)
	if !slices.Equal(told, []string{"eth0 removed", "eth1 up"}) {
		t.Errorf("the second list tells %v", told)
	}
	tr.set(5, linkState{"eth3", 1500, true})
	tr.set(6, linkState{"eth4", 1500, true})
	if len(tr.state) != 4 || full != 1 {
		t.Errorf("%d of at most 4 are kept; %d found no room", len(tr.state), full)
	}
}

// A storm of changes is cut off and counted.
func TestQueueBound(t *testing.T) {
	q := queue{clock: wall}
	for range maxQueued + 5 {
		q.change(capture.Change{Kind: capture.ChangeLink})
	}
	got, until := q.takeChanges(nil)
	if len(got) != maxQueued || q.dropped != 5 || until < got[len(got)-1].At {
		t.Errorf("%d kept, %d dropped", len(got), q.dropped)
	}
	q.change(capture.Change{Kind: capture.ChangeRoute})
	if again, _ := q.takeChanges(nil); len(again) != 1 || again[0].Sample.Change.Kind != capture.ChangeRoute {
		t.Errorf("%d after the storm", len(again))
	}
}
