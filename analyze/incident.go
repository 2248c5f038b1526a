package analyze

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"jindan/capture"
)

// Aftermath is how long after its end a fault may still show in something new: what waited for it gives up, queues drain.
// Most clients wait for 10 s or less. What begins later is another fault.
const Aftermath = 15 * time.Second

// Incident is one fault, or several that cannot be told apart, with all that follows from it, from its beginning to its end.
type Incident struct {
	ID       string          `json:"id"`              // the same from its first record to its last, and in a replay
	State    State           `json:"state"`           // open or resolved
	Ended    Ended           `json:"ended,omitempty"` // of one that is resolved: unasked if its last finding is
	Severity string          `json:"severity"`
	Headline Text            `json:"headline"` // what its roots are, and where
	Begin    capture.Instant `json:"begin"`    // first affected event
	End      capture.Instant `json:"end"`      // last time that any of it was seen
	Roots    []string        `json:"roots"`    // finding ids, first affected event first; none: its cause is open
	Chain    []string        `json:"chain"`    // roots, then consequences, in the order of their onsets
	Also     []string        `json:"also"`     // findings of the same host and time whose cause is open
}

// IncidentID names the incident that f was the first to show.
func IncidentID(f *Finding) string {
	h := sha256.Sum256([]byte(f.ID + "|" + strconv.FormatInt(int64(f.Detected), 10)))
	return "incident-" + hex.EncodeToString(h[:6])
}

// Incidents are those of the findings, those that are open first, the first to begin first.
func Incidents(fs []*Finding) []Incident {
	byOnset := slices.Clone(fs)
	slices.SortStableFunc(byOnset, func(a, b *Finding) int { return cmp.Compare(a.Onset, b.Onset) })
	at := make(map[string]int)
	out := []Incident{}
	heads := make(map[string][]*Finding)
	add := func(list *[]string, id string) {
		if !slices.Contains(*list, id) {
			*list = append(*list, id)
		}
	}
	for _, f := range byOnset {
		if f.Incident == "" {
			continue
		}
		i, ok := at[f.Incident]
		if !ok {
			i = len(out)
			at[f.Incident] = i
			out = append(out, Incident{ID: f.Incident, State: Resolved, Severity: f.Severity, Begin: f.Onset,
				Roots: []string{}, Chain: []string{}, Also: []string{}})
		}
		x := &out[i]
		if x.End = max(x.End, f.LastSeen); x.End == f.LastSeen {
			x.Ended = f.Ended
		}
		if f.State != Resolved {
			x.State = Open
		}
		if rank(f.Severity) > rank(x.Severity) {
			x.Severity = f.Severity
		}
		switch f.Role {
		case Root:
			add(&x.Roots, f.ID)
			add(&x.Chain, f.ID)
			heads[f.Incident] = append(heads[f.Incident], f)
		case Independent, Pending:
			add(&x.Also, f.ID)
		}
	}
	for _, f := range byOnset {
		if f.Incident != "" && f.Role == Consequence {
			add(&out[at[f.Incident]].Chain, f.ID)
		}
	}
	for i := range out {
		x := &out[i]
		if fs := heads[x.ID]; len(fs) > 0 {
			x.Headline = headline(fs)
			continue
		}
		var open []*Finding
		for _, f := range byOnset {
			if f.Incident == x.ID {
				open = append(open, f)
			}
		}
		x.Headline = headline(open)
		x.Headline.En, x.Headline.Ko = "Cause open: "+x.Headline.En, "원인 미상: "+x.Headline.Ko
	}
	for i := range out {
		if out[i].State == Open {
			out[i].Ended = ""
		}
	}
	over := func(x *Incident) int {
		if x.State == Resolved {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(out, func(a, b Incident) int {
		return cmp.Or(cmp.Compare(over(&a), over(&b)), cmp.Compare(a.Begin, b.Begin))
	})
	return out
}

// maxHeads is how many findings a headline names.
const maxHeads = 2

func headline(fs []*Finding) (t Text) {
	var en, ko []string
	for _, f := range fs {
		at := f.Subject.String()
		if at != "" {
			at = ", " + at
		}
		if x := f.Title.En + at; !slices.Contains(en, x) {
			en, ko = append(en, x), append(ko, f.Title.Ko+at)
		}
	}
	t.En, t.Ko = strings.Join(en[:min(len(en), maxHeads)], "; "), strings.Join(ko[:min(len(ko), maxHeads)], "; ")
	if n := len(en) - maxHeads; n > 0 {
		t.En += fmt.Sprintf("; and %d more", n)
		t.Ko += fmt.Sprintf(" 외 %d건", n)
	}
	return t
}

// String is s in a line: "from → to", or where it listens.
func (s Subject) String() string {
	end := func(host string, port uint16) string {
		if port == 0 || host == "" {
			return host
		}
		return net.JoinHostPort(host, strconv.Itoa(int(port)))
	}
	switch s.Kind {
	case SubjectPath, SubjectSegment:
		from, to := s.Peer, s.Host
		if s.Direction == "outbound" {
			from, to = to, from
		}
		return strings.Trim(from+" → "+to, " ")
	case SubjectUpstream, SubjectResolver:
		return s.Host + " → " + end(s.Peer, s.Port)
	case SubjectSource:
		return s.Peer + " → " + end(s.Host, s.Port)
	}
	return strings.TrimSpace(end(s.Host, s.Port) + " " + s.Segment)
}
