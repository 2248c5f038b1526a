package report

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"jindan/analyze"
	"jindan/capture"
)

// Lang is a language of reports.
type Lang string

// The languages.
const (
	English Lang = "en"
	Korean  Lang = "ko"
)

// pick returns the one of two wordings that is in l.
func (l Lang) pick(en, ko string) string {
	if l == Korean {
		return ko
	}
	return en
}

// Text returns t in l, on one line.
func (l Lang) Text(t analyze.Text) string { return Clean(l.pick(t.En, t.Ko)) }

// count writes n with separators between the thousands.
func count[T int | uint64 | uint32](n T) string {
	s := strconv.FormatInt(int64(n), 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// plural writes n things: "1 packet", "2 packets", "패킷 2개".
func (l Lang) plural(n uint64, one, many, ko string) string {
	if l == Korean {
		return fmt.Sprintf(ko, count(n))
	}
	if n == 1 {
		return "1 " + one
	}
	return count(n) + " " + many
}

// span writes a duration for people, with two or three significant digits.
func (l Lang) span(d time.Duration) string {
	sign := ""
	if d < 0 {
		sign, d = "−", -d
	}
	s := d.Seconds()
	unit := func(format string, v float64, en, ko string) string {
		return sign + fmt.Sprintf(format, v) + l.pick(" "+en, ko)
	}
	switch {
	case d < 100*time.Microsecond && d > 0:
		return unit("%.0f", float64(d)/1e3, "µs", "µs")
	case d < 10*time.Millisecond && d > 0:
		return unit("%.2g", float64(d)/1e6, "ms", "ms")
	case s < 0.9995:
		return unit("%.2f", s, "s", "초")
	case s < 99.95:
		return unit("%.1f", s, "s", "초")
	case s < 7200:
		m := int(s) / 60
		return sign + fmt.Sprintf(l.pick("%d min %02d s", "%d분 %02d초"), m, int(s)%60)
	case s < 2*86400:
		return sign + fmt.Sprintf(l.pick("%d h %02d min", "%d시간 %02d분"), int(s)/3600, int(s)/60%60)
	}
	return sign + fmt.Sprintf(l.pick("%d days %d h", "%d일 %d시간"), int(s)/86400, int(s)/3600%24)
}

// offset writes a time after another one: "+0.04 s". A consequence that seems to begin within a second
// before its cause is within the precision of the onsets.
func (l Lang) offset(d time.Duration) string {
	s := d.Seconds()
	switch {
	case s < -0.005 && s > -1:
		return "≈0" + l.pick(" s", "초")
	case s < -0.005 || s >= 3600:
		if s > 0 {
			return "+" + l.span(d)
		}
		return l.span(d)
	case s < 9.995:
		return fmt.Sprintf("+%.2f", max(s, 0)) + l.pick(" s", "초")
	}
	return fmt.Sprintf("+%.1f", s) + l.pick(" s", "초")
}

// clock writes times in one zone.
type clock struct{ zone *time.Location }

// zoneAt is how the zone is called beside a time.
func (c clock) zoneAt(at capture.Instant) string {
	if c.zone == time.UTC {
		return "UTC"
	}
	return at.Time().In(c.zone).Format("-07:00")
}

// full is the date, the time to the millisecond and the zone.
func (c clock) full(at capture.Instant) string {
	return at.Time().In(c.zone).Format("2006-01-02 15:04:05.000") + " " + c.zoneAt(at)
}

// day is the date.
func (c clock) day(at capture.Instant) string { return at.Time().In(c.zone).Format(time.DateOnly) }

// short is the time of day to the millisecond.
func (c clock) short(at capture.Instant) string {
	return at.Time().In(c.zone).Format("15:04:05.000")
}

// second is the date and time to the second, and the zone.
func (c clock) second(at capture.Instant) string {
	return at.Time().In(c.zone).Format(time.DateTime) + " " + c.zoneAt(at)
}

// Role is the word for a role.
func (l Lang) Role(r analyze.Role) string {
	switch r {
	case analyze.Root:
		return l.pick("cause", "원인")
	case analyze.Consequence:
		return l.pick("consequence", "결과")
	case analyze.Pending:
		return l.pick("cause open", "원인 확인 중")
	}
	return l.pick("by itself", "독립")
}

// Severity is the word for a severity.
func (l Lang) Severity(s string) string {
	switch s {
	case "error":
		return l.pick("error", "오류")
	case "warn":
		return l.pick("warning", "경고")
	}
	return l.pick("info", "정보")
}

// Incident tells of one in a line: from when to when, and what it was.
func (l Lang) Incident(x *analyze.Incident, zone *time.Location) string {
	at := func(t capture.Instant) string { return t.Time().In(zone).Format("15:04:05") }
	if x.State != analyze.Resolved {
		return fmt.Sprintf(l.pick("since %s: %s", "%s부터: %s"), at(x.Begin), l.Text(x.Headline))
	}
	lasted := l.span(x.End.Sub(x.Begin))
	if x.Ended == analyze.EndedUnasked {
		lasted += l.pick(", then nobody tried", ", 이후 시도 없음")
	}
	return fmt.Sprintf("%s – %s (%s) %s", at(x.Begin), at(x.End), lasted, l.Text(x.Headline))
}

// IncidentRow is Incident with its state and the date.
func (l Lang) IncidentRow(x *analyze.Incident, zone *time.Location) string {
	state := l.pick("OPEN", "진행 중")
	if x.State == analyze.Resolved {
		state = l.pick("PAST", "종료")
	}
	return Clean(fmt.Sprintf("%s %s  %s  %s", pad(state, 7), x.ID, x.Begin.Time().In(zone).Format(time.DateOnly), l.Incident(x, zone)))
}

// Place says where a finding is, on one harmless line.
func (l Lang) Place(s analyze.Subject, own ...string) string { return Clean(l.place(s, own...)) }

// place says where a finding is; own are the addresses of this host.
func (l Lang) place(s analyze.Subject, own ...string) string {
	host := s.Host
	if host != "" && slices.Contains(own, host) {
		host += l.pick(" (this host)", "(이 호스트)")
	}
	port := func(a string) string {
		switch {
		case s.Port == 0:
			return a
		case strings.Contains(a, ":"):
			return fmt.Sprintf("[%s]:%d", a, s.Port)
		}
		return fmt.Sprintf("%s:%d", a, s.Port)
	}
	hostPort := port(s.Host) + strings.TrimPrefix(host, s.Host)
	seg := ""
	switch s.Segment {
	case "", "data":
	case "syn", "syn-ack":
		seg = ", " + strings.ToUpper(s.Segment)
	default: // the name of an interface, a process, a file
		seg = ", " + s.Segment
	}
	switch s.Kind {
	case analyze.SubjectCapture:
		return l.pick("this capture", "이 캡처")
	case analyze.SubjectSegment: // of the points, and the pair of hosts that lost most there
		return fmt.Sprintf("%s (%s → %s)", s.Segment, s.Peer, s.Host)
	case analyze.SubjectPath:
		if s.Peer == "" && s.Direction != "" {
			s.Peer = l.pick("its peers", "여러 상대")
		}
		if s.Direction == "outbound" {
			return host + " → " + s.Peer + l.pick(", outbound", ", 송신 방향") + seg
		}
		return s.Peer + " → " + host + l.pick(", inbound", ", 수신 방향") + seg
	case analyze.SubjectUpstream:
		return host + " → " + port(s.Peer) + seg
	case analyze.SubjectResolver:
		return host + " → " + l.pick("DNS server ", "DNS 서버 ") + port(s.Peer)
	case analyze.SubjectSource:
		return s.Peer + " → " + hostPort + seg
	}
	return hostPort + seg
}
