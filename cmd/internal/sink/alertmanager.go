package sink

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"

	"jindan/analyze"
)

// AlertmanagerOptions configures delivery to Prometheus Alertmanager.
type AlertmanagerOptions struct {
	Address string        // URL; without a path /api/v2/alerts is taken
	Every   time.Duration // between repetitions of open alerts; default 1 min, must be below Alertmanager's resolve_timeout of 5 min
	HTTP
}

// alert is postableAlert of the v2 API.
type alert struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	StartsAt    string            `json:"startsAt"`
	EndsAt      string            `json:"endsAt"`
}

type alertmanager struct {
	*client
	o    AlertmanagerOptions
	open map[string]alert // by finding id
}

// NewAlertmanager returns the sink "alertmanager". Findings become alerts; other
// records are passed over.
func NewAlertmanager(o AlertmanagerOptions) (Sink, error) {
	if o.Every <= 0 {
		o.Every = time.Minute
	}
	c, err := newClient(o.Address, "/api/v2/alerts", o.HTTP)
	if err != nil {
		return nil, fmt.Errorf("sink alertmanager: %w", err)
	}
	return &alertmanager{c, o, map[string]alert{}}, nil
}

// Send posts the last state of each finding of the batch: Alertmanager keeps
// states, not events.
func (s *alertmanager) Send(ctx context.Context, batch []Message, out []Outcome) error {
	open := maps.Clone(s.open)
	var post []alert
	now := time.Now()
	for i := range batch {
		m := &batch[i]
		if m.Kind != KindFinding {
			continue
		}
		last := !slices.ContainsFunc(batch[i+1:], func(n Message) bool { return n.Kind == KindFinding && n.ID == m.ID })
		if !last {
			continue
		}
		var f finding
		if err := unmarshal(m.Body, &f); err != nil {
			return &RefusedError{err}
		}
		a := newAlert(&f)
		// Labels are the identity: an alert whose severity changed is another one.
		if was, ok := open[m.ID]; ok && !maps.Equal(was.Labels, a.Labels) {
			was.EndsAt = max(f.Time, f.Onset+1).String()
			post = append(post, was)
		}
		if m.State == analyze.Resolved {
			a.EndsAt = max(f.Time, f.Onset+1).String() // an end that is not after the start is refused
			delete(open, m.ID)
		} else {
			open[m.ID] = a
			a.EndsAt = s.until(now)
		}
		post = append(post, a)
	}
	if err := s.send(ctx, post); err != nil {
		return err
	}
	s.open = open
	fill(out, Accepted)
	return nil
}

// until is when an open alert ends that is not posted again: the agent is gone.
func (s *alertmanager) until(now time.Time) string {
	return now.Add(4 * s.o.Every).UTC().Format(time.RFC3339Nano)
}

func (s *alertmanager) send(ctx context.Context, alerts []alert) error {
	if len(alerts) == 0 {
		return nil
	}
	body, err := marshal(alerts)
	if err != nil {
		return &RefusedError{err}
	}
	_, err = s.post(ctx, "application/json", body, nil)
	return err
}

// Refresh posts the open alerts again.
func (s *alertmanager) Refresh(ctx context.Context) error {
	var alerts []alert
	for _, id := range slices.Sorted(maps.Keys(s.open)) {
		a := s.open[id]
		a.EndsAt = s.until(time.Now())
		alerts = append(alerts, a)
	}
	return s.send(ctx, alerts)
}

// RefreshEvery is the interval of Refresh.
func (s *alertmanager) RefreshEvery() time.Duration { return s.o.Every }

// alert maps a finding. Labels say what and where, and never change with time:
// no pid, no source port.
func newAlert(f *finding) alert {
	labels := map[string]string{"alertname": f.Title.En, "severity": f.Severity, "rule_id": f.Rule, "finding": f.ID}
	add := func(k, v string) {
		if v != "" {
			labels[k] = v
		}
	}
	port := func(host string) string {
		if f.Subject.Port == 0 || host == "" {
			return host
		}
		return net.JoinHostPort(host, strconv.Itoa(int(f.Subject.Port)))
	}
	service := f.Subject.Host
	if f.Subject.Kind == analyze.SubjectUpstream || f.Subject.Kind == analyze.SubjectResolver {
		service = f.Subject.Peer
	}
	add("instance", f.Host)
	add("service", port(service))
	add("peer", f.Subject.Peer)
	add("direction", f.Subject.Direction)
	return alert{Labels: labels, StartsAt: f.Onset.String(),
		Annotations: map[string]string{"summary": line(f.Title.En), "description": line(f.Summary.En), "description_ko": line(f.Summary.Ko), "role": string(f.Role)}}
}
