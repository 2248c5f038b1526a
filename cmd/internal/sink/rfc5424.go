package sink

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"jindan/analyze"
)

// facilities in the order of their numbers (RFC 5424 §6.2.1, table 1; names of syslog(3)).
var facilities = []string{"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
	"ntp", "security", "console", "solaris-cron", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"}

// syslogSeverity are the numbers of table 2: Informational, Warning, Error.
var syslogSeverity = map[string]int{"info": 6, "warn": 4, "error": 3}

// structuredID is the name of the structured data (SD-ID). 32473 is the private
// enterprise number of examples (RFC 5612): none is registered for jindan.
const structuredID = "jindan@32473"

const bom = "\xEF\xBB\xBF" // RFC 5424 §6.4: MSG in UTF-8

// formatter writes RFC 5424 messages.
type formatter struct {
	facility int
	json     bool // the record as @cee JSON, not its sentence
	most     int  // bytes of a message
	pid      string
}

func newFormatter(o SyslogOptions, most int) (*formatter, error) {
	if o.Facility == "" {
		o.Facility = "daemon"
	}
	n := slices.Index(facilities, o.Facility)
	if n < 0 {
		return nil, fmt.Errorf("facility %q: use one of %s", o.Facility, strings.Join(facilities, ", "))
	}
	return &formatter{n, o.JSON, most, strconv.Itoa(os.Getpid())}, nil
}

// header is a header field: printable ASCII, at most n bytes, "-" for none.
func header(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if r < 33 || r > 126 {
			return '_'
		}
		return r
	}, s)
	if s == "" {
		return "-"
	}
	return s[:min(len(s), n)]
}

// format appends one message. Too long a text is cut between characters; JSON,
// which cannot be cut, gives way to the sentence.
func (f *formatter) format(b []byte, m *Message) ([]byte, error) {
	message, x, err := summarise(&m.Record)
	if err != nil {
		return b, err
	}
	start := len(b)
	b = fmt.Appendf(b, "<%d>1 %s %s jindan %s %s ", f.facility*8+syslogSeverity[m.Severity],
		m.Time.Time().Format("2006-01-02T15:04:05.000000Z"), header(m.Host, 255), header(f.pid, 128), header(string(m.Kind), 32))
	sd := len(b)
	b = structured(b, &m.Record, x)
	if len(b)-start > f.most-64 { // leave room for words
		b = append(b[:sd], '-')
	}
	b = append(b, ' ')
	if f.json && len(b)-start+len("@cee: ")+len(m.Data) <= f.most {
		return append(append(b, "@cee: "...), m.Data...), nil
	}
	b = append(b, bom...)
	return append(b, truncate(message, max(0, f.most-(len(b)-start)))...), nil
}

var sdEscaper = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`)

// structured appends the structured data element.
func structured(b []byte, r *Record, x *finding) []byte {
	b = append(append(b, '['), structuredID...)
	param := func(name, value string) {
		if value != "" {
			const most = 512 // bytes of a value; ids, addresses and words are far shorter
			b = append(append(append(b, ' '), name...), '=', '"')
			b = append(b, sdEscaper.Replace(truncate(line(value), most))...)
			b = append(b, '"')
		}
	}
	param("id", r.ID)
	param("seq", strconv.FormatUint(r.Seq, 10))
	param("state", string(r.State))
	param("severity", r.Severity)
	param("rule", r.Rule)
	if r.Repeat > 0 {
		param("repeat", strconv.FormatUint(r.Repeat, 10))
	}
	if x != nil {
		param("role", string(x.Role))
		param("conf", x.Confidence.Level)
		param("kind", x.Subject.Kind)
		src, dst := x.Subject.Peer, x.Subject.Host // who connects, or for a path who sends, is the source
		if x.Subject.Direction == "outbound" || x.Subject.Kind == analyze.SubjectUpstream || x.Subject.Kind == analyze.SubjectResolver {
			src, dst = dst, src
		}
		param("src", src)
		param("dst", dst)
		if x.Subject.Port != 0 {
			param("dpt", strconv.Itoa(int(x.Subject.Port)))
		}
		param("onset", x.Onset.String())
		param("because", strings.Join(x.Because, ","))
	}
	return append(b, ']')
}
