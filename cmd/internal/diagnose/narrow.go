package diagnose

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/net/bpf"

	"jindan/capture"
	"jindan/capture/live/filter"
	"jindan/cmd/internal/report"
)

// Narrow is which part of an input is looked at: a span of time, and packets that a filter accepts.
type Narrow struct {
	Since, Until, Filter string

	zone     *time.Location
	vm       *bpf.VM
	from, to capture.Instant // 0: open; known with the first observation
	began    bool
	header   []byte
	batch    capture.Batch // what is left of the one read
}

// Set reports whether anything is to be left out.
func (n *Narrow) Set() bool { return n.Since != "" || n.Until != "" || n.Filter != "" }

// errBehind ends the reading behind --until.
var errBehind = errors.New("behind --until")

// Compile prepares n; zone is that of clock times.
func (n *Narrow) Compile(zone *time.Location) error {
	n.zone = zone
	for _, x := range []struct{ flag, value string }{{"--since", n.Since}, {"--until", n.Until}} {
		if _, err := instant(x.value, 0, zone); err != nil {
			return fmt.Errorf("%s: %w", x.flag, err)
		}
	}
	e, err := filter.Parse(n.Filter)
	if err != nil {
		return fmt.Errorf("--filter: %w", err)
	}
	if e == nil {
		return nil
	}
	raw, err := e.Program(filter.Raw, 1)
	if err != nil {
		return fmt.Errorf("--filter: %w", err)
	}
	program, _ := bpf.Disassemble(raw)
	n.vm, err = bpf.NewVM(program)
	n.header = make([]byte, 60)
	return err
}

// instant is the time that a value of --since or --until names in an input that begins at first; 0: none is named.
func instant(s string, first capture.Instant, zone *time.Location) (capture.Instant, error) {
	if s == "" {
		return 0, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return first.Add(d), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return capture.Instant(t.UnixNano()), nil
	}
	day := first.Time().In(zone)
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02T15:04:05", "15:04:05", "15:04"} {
		t, err := time.ParseInLocation(layout, s, zone)
		if err != nil {
			continue
		}
		if t.Year() == 0 {
			t = time.Date(day.Year(), day.Month(), day.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), zone)
		}
		return capture.Instant(t.UnixNano()), nil
	}
	return 0, fmt.Errorf("%q: write 30s or 2m into the input, 15:04:05 on its first day, or 2006-01-02T15:04:05Z", s)
}

// all reports whether nothing is left out.
func (n *Narrow) all() bool { return n == nil || n.Since == "" && n.Until == "" && n.vm == nil }

// part is what of b is looked at; errBehind: b and all that follows is not.
func (n *Narrow) part(b *capture.Batch) (*capture.Batch, error) {
	if n.all() {
		return b, nil
	}
	if !n.began && len(b.Obs) > 0 {
		n.began = true
		n.from, _ = instant(n.Since, b.Obs[0].At, n.zone) // compile has tried them
		n.to, _ = instant(n.Until, b.Obs[0].At, n.zone)
	}
	kept := n.batch.Obs[:0]
	for i := range b.Obs {
		o := &b.Obs[i]
		if o.At >= n.from && (n.to == 0 || o.At < n.to) && (o.Kind != capture.KindPacket || n.accepts(&o.Packet)) {
			kept = append(kept, *o)
		}
	}
	if n.to != 0 && len(b.Obs) > 0 && b.Until >= n.to && len(kept) == 0 {
		return nil, errBehind
	}
	until := b.Until
	if n.to != 0 {
		until = min(until, n.to)
	}
	n.batch = capture.Batch{Obs: kept, Until: until}
	return &n.batch, nil
}

// accepts runs the filter over headers that say of a packet what the decoder has read: of a tunnel's packet the inner ones.
func (n *Narrow) accepts(p *capture.Packet) bool {
	if n.vm == nil {
		return true
	}
	h := n.header
	clear(h)
	src, dst := p.Src.Addr.Netip(), p.Dst.Addr.Netip()
	ports := 20
	if src.Is4() && dst.Is4() {
		h[0], h[8], h[9] = 0x45, p.TTL, p.Proto
		binary.BigEndian.PutUint16(h[2:], uint16(min(p.IPLen, 65535)))
		a, b := src.As4(), dst.As4()
		copy(h[12:], a[:])
		copy(h[16:], b[:])
	} else {
		h[0], h[6], h[7] = 0x60, p.Proto, p.TTL
		binary.BigEndian.PutUint16(h[4:], uint16(min(p.IPLen-min(p.IPLen, 40), 65535)))
		copy(h[8:], p.Src.Addr[:])
		copy(h[24:], p.Dst.Addr[:])
		ports = 40
	}
	t := h[ports:]
	switch p.Proto {
	case capture.ProtoTCP:
		binary.BigEndian.PutUint32(t[4:], p.Seq)
		binary.BigEndian.PutUint32(t[8:], p.Ack)
		t[12], t[13] = 0x50, p.Flags
		fallthrough
	case capture.ProtoUDP:
		binary.BigEndian.PutUint16(t, p.Src.Port)
		binary.BigEndian.PutUint16(t[2:], p.Dst.Port)
	}
	got, err := n.vm.Run(h)
	return err == nil && got > 0
}

// Note says what was left out; empty: nothing was.
func (n *Narrow) Note(lang report.Lang) string {
	if n.all() {
		return ""
	}
	var parts []string
	add := func(value, en, ko string) {
		switch {
		case value == "":
		case lang == report.Korean:
			parts = append(parts, fmt.Sprintf(ko, value))
		default:
			parts = append(parts, fmt.Sprintf(en, value))
		}
	}
	add(n.Since, "since %s", "%s부터")
	add(n.Until, "until %s", "%s까지")
	add(n.Filter, "matching %q", "%q에 맞는 것")
	if lang == report.Korean {
		return "입력의 일부만 보았습니다: " + strings.Join(parts, ", ")
	}
	return "only a part of the input was looked at: " + strings.Join(parts, ", ")
}
