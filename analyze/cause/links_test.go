package cause_test

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/analyze/cause"
	"jindan/analyze/detect"
	"jindan/capture"
	"jindan/rules"
)

// has are features by name; what is absent is zero.
type has map[string]any

// made are findings, one for each class of a selector, at one place.
type made struct {
	selector string
	subject  analyze.Subject
	features has
}

func (m made) findings(set *rules.Set, at time.Duration) (out []*analyze.Finding) {
	rule, classes, _ := strings.Cut(strings.TrimSuffix(m.selector, "]"), "[")
	list := set.Rule(rule).Classes
	if classes != "" {
		list = strings.Split(classes, ",")
	}
	for _, class := range list {
		features := map[string]any{"class": class}
		maps.Copy(features, m.features)
		out = append(out, finding(rule, at, m.subject, features))
	}
	if len(list) == 0 {
		features := map[string]any{}
		maps.Copy(features, m.features)
		out = append(out, finding(rule, at, m.subject, features))
	}
	return out
}

// otherwise is what, of a cause or of its effect, forbids the link.
type otherwise struct {
	why           string
	cause, effect has
	at            analyze.Subject // of the cause, where not zero
	of            string          // the only effect that this is of
	around        bool            // other mechanisms may still lead from the one to the other, unseen
}

// holding are causes and effects between which a link leads, each to each, and what forbids it besides order and identity.
type holding struct {
	causes, effects []made
	not             []otherwise
}

const caller, callee, client = "192.0.2.9", "198.51.100.2", "203.0.113.5"

// holdings has at least one entry for each edge of causes.yaml.
func holdings() []holding {
	var (
		in       = analyze.Subject{Kind: analyze.SubjectPath, Host: caller, Peer: callee, Direction: "inbound"}
		toClient = analyze.Subject{Kind: analyze.SubjectPath, Host: caller, Peer: client, Direction: "outbound"}
		toAll    = analyze.Subject{Kind: analyze.SubjectPath, Host: caller, Direction: "outbound"}
		fromAll  = analyze.Subject{Kind: analyze.SubjectPath, Host: caller, Direction: "inbound"}
		around   = analyze.Subject{Kind: analyze.SubjectPath, Host: caller}
		names    = analyze.Subject{Kind: analyze.SubjectResolver, Host: caller, Peer: callee, Port: 53}
		call     = analyze.Subject{Kind: analyze.SubjectUpstream, Host: caller, Peer: callee, Port: 443}
		called   = analyze.Subject{Kind: analyze.SubjectService, Host: callee, Port: 443}
		serves   = analyze.Subject{Kind: analyze.SubjectService, Host: caller, Port: 4433}
		all      = analyze.Subject{Kind: analyze.SubjectHost, Host: caller}
		between  = analyze.Subject{Kind: analyze.SubjectSegment, Host: caller, Peer: callee, Direction: "inbound", Segment: "a → b"}
		further  = analyze.Subject{Kind: analyze.SubjectResolver, Host: callee, Peer: "198.51.100.53", Port: 53}
	)
	const (
		starved = "close-wait[STARVED,STARVED-UNACCEPTED,STARVED-QUEUED,SLOW-HANDLER]"
		late    = "abnormal-termination[LATE-ANSWER,ABORT,OVERFLOW]"
	)
	cut := has{"addresses": " " + callee + " "}
	waits := otherwise{why: "the workers wait for another", effect: has{"outbound_kind": "tcp", "outbound_peer": "198.51.100.99", "outbound_share": 0.9}}
	spent := otherwise{why: "the requests take longer in another call", effect: has{"stage_peer": "198.51.100.99", "stage_share": 0.9, "baseline": 10.0}, of: "slow-server"}
	foreign := otherwise{why: "the host calls it for another", effect: has{"not_called": " 198.51.100.99 80 " + callee + " 53 " + callee + " 443 "}}
	job := foreign
	job.of = "slow-server"
	return []holding{
		// Loss.
		{[]made{{"size-dependent-loss", in, has{"opened": 5}}}, []made{{"dns-unanswered", names, nil}},
			[]otherwise{{why: "queries are lost, which are small", at: analyze.Subject{Kind: analyze.SubjectPath, Host: caller, Peer: callee, Direction: "outbound"}}}},
		{[]made{{"size-dependent-loss", in, has{"cliff": 1400}}}, []made{{"retransmission[data]", in, nil}}, nil},
		{[]made{{"size-dependent-loss", in, has{"opened": 5}}, {"retransmission[data]", in, has{"opened": 5}}}, []made{{"slow-server[called]", call, nil}},
			[]otherwise{{why: "the other opened the connections", cause: has{"opened": 0}, around: true}}},
		{[]made{{"retransmission[data]", in, has{"opened": 5}}}, []made{{"dns-unanswered", names, nil}, {"dead-upstream[silent,hung,full]", call, nil}},
			[]otherwise{{why: "what is lost is for clients", cause: has{"opened": 0}}}},
		{[]made{{"size-dependent-loss", toClient, has{"flows": 5}}, {"retransmission[data]", toClient, has{"flows": 5}}},
			[]made{{starved, serves, nil}, {"abnormal-termination", serves, nil}, {"slow-server[served]", serves, has{"flows": 5}}},
			[]otherwise{{why: "on calls of its own", cause: has{"opened": 5}, around: true},
				{why: "more connections are late than lose", effect: has{"flows": 6}, of: "slow-server"},
				{why: "a call takes the time", effect: has{"stage_peer": callee}, of: "slow-server"}}},
		{[]made{{"size-dependent-loss", fromAll, has{"flows": 5}}, {"retransmission[data]", fromAll, has{"flows": 5}}}, []made{{"slow-server[served]", serves, has{"flows": 5}}}, nil},
		{[]made{{"retransmission[data]", toClient, has{"share": 0.05}}}, []made{{"retransmission[syn,syn-ack]", serves, has{"share": 0.15}}},
			[]otherwise{{why: "handshakes are lost far more often than data", effect: has{"share": 0.16}, around: true}, {why: "data of its own calls, handshakes of its clients", cause: has{"opened": 5}, around: true}}},
		{[]made{{"retransmission[data]", toAll, nil}}, []made{{"retransmission[data]", toClient, nil}}, nil},
		{[]made{{"size-dependent-loss", toAll, nil}}, []made{{"size-dependent-loss", toClient, nil}}, nil},
		{[]made{{"size-dependent-loss", analyze.Subject{Kind: analyze.SubjectPath, Host: caller, Peer: callee, Direction: "outbound"}, has{"cliff": 1400}}},
			[]made{{"dead-connection[vanished,gone,some,forgotten,outage]", call, has{"smallest": 1400}}},
			[]otherwise{{why: "a small segment went unanswered, too", effect: has{"smallest": 1399}}, {why: "to another peer", at: toClient}, {why: "the other direction", at: in}}},

		// A path that is cut, and connections that die.
		{[]made{{"path-cut", around, cut}}, []made{{"dns-unanswered", names, nil}, {"dead-upstream[silent,gone,hung]", call, nil}, {"retransmission", in, nil}},
			[]otherwise{{why: "peers elsewhere are cut off", cause: has{"addresses": " 198.51.100.99 "}}, {why: "an address that begins alike", cause: has{"addresses": " " + callee + "0 "}}}},
		{[]made{{"path-cut", around, has{"addresses": " " + client + " ", "one_way": 3}}}, []made{{"retransmission[syn,syn-ack]", serves, nil}},
			[]otherwise{{why: "cut both ways no SYN of a client comes", cause: has{"one_way": 0}, around: true}}},
		{[]made{{"path-cut", around, cut}}, []made{{"connection-refused[silent]", called, nil}, {"retransmission[syn]", called, nil}},
			[]otherwise{{why: "another host is cut off", cause: has{"addresses": " 198.51.100.99 "}}}},
		{[]made{{"path-cut", around, cut}}, []made{{"dead-connection", call, nil}, {"dead-connection", serves, has{"clients": 2, "to": client}}, {"dead-connection", serves, has{"clients": 1, "to": callee}}},
			[]otherwise{{why: "peers elsewhere are cut off", cause: has{"addresses": " 198.51.100.99 "}, effect: has{"clients": 1, "to": client}}}},
		{[]made{{"dead-connection", call, nil}}, []made{{"retransmission[data]", in, nil}}, nil},
		{[]made{{"dead-connection[unreached]", serves, nil}}, []made{{"retransmission[syn-ack]", serves, nil}},
			[]otherwise{{why: "dead after the handshake", cause: has{"class": "gone"}, around: true}}},
		{[]made{{"dead-connection[gone,forgotten,some,outage,discarded,unreached]", call, nil}}, []made{{"slow-server[called]", call, nil}, {"dead-upstream[silent]", call, nil}}, nil},
		{[]made{{"dead-connection", call, nil}, {"dead-upstream", call, nil}}, []made{{"abnormal-termination", called, nil}}, nil},
		{[]made{{"dead-upstream[gone]", call, nil}, {"connection-refused", called, nil}}, []made{{"dead-connection", call, nil}, {"abnormal-termination[NO-ANSWER]", called, nil}}, nil},
		{[]made{{"state-mismatch[loop,echo,astray]", called, nil}}, []made{{"dead-connection[vanished,gone,some,forgotten]", call, nil}, {"slow-server[called]", call, nil}, {"abnormal-termination", called, nil}}, nil},
		{[]made{{"state-mismatch[old,elsewhere]", serves, nil}}, []made{{"connection-refused", serves, nil}}, nil},
		{[]made{{"state-mismatch[old,elsewhere]", called, has{"failed": 10}}}, []made{{"dead-upstream[silent,full]", call, has{"syn_unanswered": 20}}},
			[]otherwise{{why: "most got no answer at all", cause: has{"failed": 9}, around: true}}},

		// Names.
		{[]made{{"dns-unanswered", names, nil}}, []made{{"dns-delay", names, nil}}, nil},
		{[]made{{"dns-unanswered", further, nil}, {"dns-delay", further, nil}, {"dns-errors", further, nil}}, []made{{"dns-unanswered", names, nil}, {"dns-delay", names, nil}, {"dns-errors", names, nil}},
			[]otherwise{{why: "a host's own stub asks what it is asked", at: analyze.Subject{Kind: analyze.SubjectResolver, Host: callee, Peer: "127.0.0.53", Port: 53}},
				{why: "it asks itself", at: analyze.Subject{Kind: analyze.SubjectResolver, Host: callee, Peer: callee, Port: 53}}}},
		{[]made{{"dns-unanswered", names, has{"tcp_refused": 3}}}, []made{{"dead-upstream[silent,refused]", analyze.Subject{Kind: analyze.SubjectUpstream, Host: caller, Peer: callee, Port: 53}, nil}},
			[]otherwise{{why: "no truncated answer was asked for again", cause: has{"tcp_refused": 0}}}},

		// What a request waits for.
		{[]made{{"dns-unanswered", names, nil}, {"dns-delay", names, nil}}, []made{{"pool-exhausted", serves, nil}}, []otherwise{waits, foreign}},
		{[]made{{"slow-server[called]", call, nil}, {"dead-upstream[silent,gone,hung,full]", call, nil}}, []made{{"pool-exhausted", serves, nil}}, []otherwise{waits, foreign}},
		{[]made{{"dns-unanswered", names, nil}, {"dns-delay", names, nil}, {"slow-server[called]", call, nil}, {"dead-upstream", call, nil}},
			[]made{{"slow-server[served]", serves, nil}, {"abnormal-termination[NO-ANSWER,LATE-REQUEST]", serves, nil}}, []otherwise{spent, job}},
		{[]made{{"dns-unanswered", names, nil}}, []made{{"slow-server[served]", serves, has{"stage_peer": "198.51.100.99", "stage_share": 0.9}}}, nil}, // a queue that was asked on purpose before, too

		// Upstreams.
		{[]made{{"dead-upstream[silent,gone,full,outbound,refused]", call, nil}}, []made{{"retransmission[syn,syn-ack]", call, nil}},
			[]otherwise{{why: "refused is another port than the one that is silent", cause: has{"class": "refused"}, at: analyze.Subject{Kind: analyze.SubjectUpstream, Host: caller, Peer: callee, Port: 80}}}},
		{[]made{{"dead-upstream[silent,gone,refused,hung]", call, nil}}, []made{{"slow-server[called]", call, nil}}, nil},
		{[]made{{"slow-server[called]", call, nil}}, []made{{"dead-upstream[full]", call, nil}, {"retransmission[syn,syn-ack]", call, nil}}, nil},
		{[]made{{"dead-upstream", call, nil}, {"slow-server[called]", call, nil}}, []made{{"backend-skew", analyze.Subject{Kind: analyze.SubjectHost, Host: caller, Port: 443}, has{"failed_member": callee}},
			{"backend-skew", analyze.Subject{Kind: analyze.SubjectHost, Host: caller, Port: 443}, has{"idlest": callee}}},
			[]otherwise{{why: "another member gets nothing", effect: has{"failed_member": client, "idlest": client}}}},
		{[]made{{"size-dependent-loss", toAll, has{"cliff": 1400}}}, []made{{"path-cut", around, has{"smallest": 1500}}},
			[]otherwise{{why: "a small packet went unanswered, too", effect: has{"smallest": 60}}, {why: "its peers do get something", effect: has{"smallest": 1500, "one_way": 2}}}},
		{[]made{{"dns-errors", names, has{"p95": 3.0, "errors": 5}}}, []made{{"dns-delay", names, has{"p95": 3.0, "slow": 10}}},
			[]otherwise{{why: "the errors come at once", cause: has{"p95": 0.01}}, {why: "most of the slow answers are none", effect: has{"slow": 11}, around: true}}},
		{[]made{{"dns-errors", names, has{"p95": 10.0}}}, []made{{"dns-unanswered", names, nil}}, []otherwise{{why: "the errors come at once", cause: has{"p95": 0.01}}}},
		{[]made{{"accept-queue", called, nil}}, []made{{"dead-upstream[silent,full]", call, nil}}, nil},
		{[]made{{"connection-refused", called, nil}}, []made{{"dead-upstream[silent,gone,refused,full]", call, nil}}, nil},
		{[]made{{"dead-upstream", call, nil}}, []made{{"abnormal-termination[ABORT,CUT-SHORT]", serves, has{"resets": 9, "by_server": 9}}},
			[]otherwise{{why: "the clients reset", effect: has{"resets": 9, "by_server": 1}, around: true}}},

		{[]made{{"slow-server[served]", called, nil}, {"pool-exhausted", called, nil}, {"connection-refused", called, nil}},
			[]made{{"slow-server[served]", serves, has{"stage_peer": callee, "stage_port": 443, "stage_share": 0.9}}, {"pool-exhausted", serves, has{"outbound_peer": callee, "outbound_port": 443}}},
			[]otherwise{{why: "most of the time is elsewhere", of: "slow-server", effect: has{"stage_share": 0.3}},
				{why: "it calls another port", effect: has{"stage_port": 444, "outbound_port": 444}}}},

		// What a service that is late does to those who wait for it.
		{[]made{{"pool-exhausted", serves, nil}}, []made{{"slow-server[served]", serves, nil}, {"slow-receiver[listener]", serves, nil}}, nil},
		{[]made{{"slow-server[served]", serves, nil}, {"pool-exhausted", serves, nil}}, []made{{starved, serves, nil}}, nil},
		{[]made{{"slow-server[served]", serves, nil}, {"pool-exhausted", serves, nil}, {starved, serves, nil}}, []made{{late, serves, has{"by_client": 1}}},
			[]otherwise{{why: "the server cut them all off", effect: has{"class": "ABORT", "by_client": 0}, around: true}}},
		{[]made{{"slow-server[served]", serves, nil}, {"pool-exhausted", serves, nil}}, []made{{"accept-queue", serves, nil}}, nil},
		{[]made{{"accept-queue", serves, nil}, {"connection-refused[silent]", serves, nil}}, []made{{"retransmission[syn,syn-ack]", serves, nil}}, nil},
		{[]made{{"accept-queue", serves, nil}}, []made{{"close-wait[STARVED]", serves, nil}, {late, serves, has{"by_client": 1}}},
			[]otherwise{{why: "the server cut them all off", of: "abnormal-termination", effect: has{"class": "ABORT", "by_client": 0}, around: true}}},
		{[]made{{"size-dependent-loss", analyze.Subject{Kind: analyze.SubjectPath, Host: caller, Peer: client, Direction: "inbound"}, nil}}, []made{{"accept-queue", serves, nil}},
			[]otherwise{{why: "answers are lost, not requests", at: toClient, around: true}, {why: "on calls of its own", cause: has{"opened": 5}, around: true}}},
		{[]made{{"slow-receiver[client]", serves, has{"flows": 2}}}, []made{{"pool-exhausted", serves, nil}, {"slow-server[served]", serves, nil}},
			[]otherwise{{why: "one client holds one worker", cause: has{"flows": 1}}}},
		{[]made{{"surge", serves, nil}}, []made{{"pool-exhausted", serves, nil}, {"slow-server[served]", serves, nil}, {"accept-queue", serves, nil}}, nil},

		// A limit that is reached.
		{[]made{{"close-wait[LEAK]", serves, has{"process": "verifyd (pid 812)"}}}, []made{{"exhaustion[descriptors]", all, has{"process": "verifyd (pid 812)"}}},
			[]otherwise{{why: "another program leaks", cause: has{"process": "crond (pid 7)"}}}},
		{[]made{{"exhaustion[descriptors]", all, nil}}, []made{{"accept-queue", serves, nil}, {"slow-server[served]", serves, nil}, {"pool-exhausted", serves, nil},
			{"abnormal-termination[ABORT,LATE-REQUEST,NO-ANSWER]", serves, nil}}, nil},
		{[]made{{"exhaustion[conntrack]", all, nil}}, []made{{"connection-refused[silent]", serves, nil}, {"retransmission[syn,syn-ack]", serves, nil}, {"dead-upstream[silent,full,outbound]", call, nil}, {"dns-unanswered", names, nil}}, nil},

		// Several capture points.
		{[]made{{"segment-size-loss", between, nil}, {"segment-loss", between, nil}},
			[]made{{"size-dependent-loss", fromAll, nil}, {"retransmission[data]", in, nil}, {"path-cut", fromAll, nil}, {"abnormal-termination", call, nil}, {"dns-unanswered", names, nil}, {"dead-connection", call, nil}, {"dead-upstream[silent,gone,full]", call, nil}}, nil},
		{[]made{{"segment-loss", analyze.Subject{Kind: analyze.SubjectSegment, Host: client, Peer: "203.0.113.6", Direction: "inbound", Segment: "a → b"},
			has{"pairs": " 203.0.113.6>" + client + " " + callee + ">" + caller + " "}}}, []made{{"retransmission[data]", in, nil}}, nil},
		{[]made{{"segment-loss", between, has{"share": 0.2}}},
			[]made{{"retransmission[data]", analyze.Subject{Kind: analyze.SubjectPath, Host: caller, Peer: callee, Direction: "outbound"}, has{"share": 0.2}}},
			[]otherwise{{why: "more is sent again than acknowledgments are lost", effect: has{"share": 0.21}, around: true}}},
		{[]made{{"segment-size-loss", between, nil}, {"segment-loss", between, nil}}, []made{{"abnormal-termination[LATE-ANSWER,ABORT,TIMEOUT]", serves, nil}},
			[]otherwise{{why: "it is datagrams that are lost", cause: has{"part": "udp"}, around: true}}},
		{[]made{{"segment-loss", between, has{"part": "syn"}}, {"segment-loss", between, has{"share": 0.31}}},
			[]made{{"retransmission[syn,syn-ack]", serves, has{"share": 0.9}}, {"connection-refused[silent]", called, has{"share": 0.9}}},
			[]otherwise{{why: "of what is lost on the way, far less is handshakes", cause: has{"part": "", "share": 0.29}, around: true}}},
		{[]made{{"segment-reset", between, has{"resets": 10}}},
			[]made{{"connection-refused[refused]", called, has{"refused": 20}}, {"dead-upstream[refused]", call, has{"refused": 20}}},
			[]otherwise{{why: "most resets come from the listener", effect: has{"refused": 21}}}},
		{[]made{{"segment-reset", between, has{"resets": 10}}}, []made{{"abnormal-termination", called, has{"resets": 20}}},
			[]otherwise{{why: "most resets come from an end", effect: has{"resets": 21}}}},
		{[]made{{"segment-delay", between, has{"rose": 0.1}}}, []made{{"slow-server[called]", call, has{"p50": 1.0}}, {"dns-delay", names, has{"p50": 1.0}}},
			[]otherwise{{why: "answers are later than ten round trips", effect: has{"p50": 1.1}}}},
		{[]made{{"segment-disorder", between, has{"needless": 1}}}, []made{{"retransmission[data]", in, nil}},
			[]otherwise{{why: "nothing was sent again that had come", cause: has{"needless": 0}}}},
	}
}

// TestLinks: each edge of causes.yaml holds in one case; order and identity forbid it, and so does each condition that its link has.
func TestLinks(t *testing.T) {
	set, err := rules.Load(detect.Features())
	if err != nil {
		t.Fatal(err)
	}
	whole := cause.New(set)
	alone := make([]*cause.Graph, set.Links()+1) // each link as if it were the only one
	for n := range alone {
		only := *set
		only.Edges = slices.DeleteFunc(slices.Clone(set.Edges), func(e *rules.Edge) bool { return e.Link != n })
		only.Unseen = nil
		alone[n] = cause.New(&only)
	}
	leads := func(g *cause.Graph, c, f *analyze.Finding) bool {
		c.ID, f.ID = "cause", "effect"
		g.Link([]*analyze.Finding{c, f}, analyze.Local{}, nil, math.MaxInt64)
		return f.Role == analyze.Consequence
	}
	held, refuted := make(map[*rules.Edge]bool), make(map[int]bool)
	for _, h := range holdings() {
		for _, cs := range h.causes {
			for _, es := range h.effects {
				for _, c := range cs.findings(set, 0) {
					for _, f := range es.findings(set, time.Second) {
						name := fmt.Sprintf("%s %v to %s %v", c.Rule, c.Features, f.Rule, f.Features)
						if !leads(whole, c, f) {
							t.Errorf("%s: no link", name)
							continue
						}
						party := func(f *analyze.Finding) *rules.Party { return &rules.Party{Rule: f.Rule, Features: f.Features} }
						for _, e := range set.Edges {
							if held[e] && e.Requires == "" && e.Known == "" || !e.Is(party(c)) || !e.Follows(party(f)) || !leads(alone[e.Link], c, f) {
								continue
							}
							held[e] = true
							if before := *f; leads(alone[e.Link], c, at(&before, c.Onset.Add(-e.Slack-past-time.Millisecond))) {
								t.Errorf("%s: leads to what began before", name)
							}
							if leads(alone[e.Link], c, elsewhere(f, e.Identity)) {
								t.Errorf("%s: leads elsewhere than to the %s", name, e.Identity)
							}
							for _, o := range h.not {
								if o.of != "" && o.of != f.Rule {
									continue
								}
								x, y := o.change(c, f)
								if leads(alone[e.Link], x, y) {
									t.Errorf("%s: leads although %s", name, o.why)
								} else {
									refuted[e.Link] = true
								}
								if !o.around && leads(whole, x, y) {
									t.Errorf("%s: the whole leads although %s", name, o.why)
								}
							}
						}
					}
				}
			}
		}
	}
	for _, e := range set.Edges {
		if !held[e] {
			t.Errorf("link %d, %v to %v: no case where it holds", e.Link, e.From, e.To)
		}
		if (e.Requires != "" || e.Known != "") && !refuted[e.Link] {
			t.Errorf("link %d, %v to %v: no case where its condition forbids it", e.Link, e.From, e.To)
		}
	}
}

// past is how much earlier than its onset a finding may have begun that has no past.
const past = 10 * time.Second

func at(f *analyze.Finding, onset capture.Instant) *analyze.Finding {
	f.Onset = onset
	return f
}

// change is c and f as o has them.
func (o *otherwise) change(c, f *analyze.Finding) (*analyze.Finding, *analyze.Finding) {
	x, y := *c, *f
	with := func(f *analyze.Finding, more has) {
		features := maps.Clone(f.Features.(map[string]any))
		maps.Copy(features, more)
		f.Features = features
	}
	with(&x, o.cause)
	with(&y, o.effect)
	if o.at != (analyze.Subject{}) {
		x.Subject = o.at
	}
	return &x, &y
}

// elsewhere moves f to what the identity of an edge tells from it.
func elsewhere(f *analyze.Finding, id rules.Identity) *analyze.Finding {
	g := *f
	switch {
	case id == rules.Within:
		g.Subject.Direction = map[string]string{"inbound": "outbound", "outbound": "inbound"}[g.Subject.Direction]
	case id == rules.SameService && g.Subject.Port != 0:
		g.Subject.Port++
	case id == rules.Serves && g.Subject.Peer == "":
		g.Features = maps.Clone(g.Features.(map[string]any))
		for _, calls := range []string{"stage_peer", "outbound_peer"} {
			g.Features.(map[string]any)[calls] = "203.0.113.77"
		}
	case id == rules.SameHost || id == rules.SameService || g.Subject.Peer == "":
		g.Subject.Host = "203.0.113.77"
	default:
		g.Subject.Peer = "203.0.113.77"
	}
	return &g
}
