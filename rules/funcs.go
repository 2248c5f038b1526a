package rules

import (
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"text/template"
)

// funcs are the functions of texts by language. Numbers are any int or float.
//
//	percent 0.9          90 %                  90%
//	duration 2.94        2.9 s                 2.9초
//	bytes 1400           1,400 bytes           1,400바이트
//	count 12000          12,000                12,000
//	decimal 2.25         2.3                   2.3
//	rate 6.4             6.4 per second        초당 6.4
//	plural 2 "a" "b"     2 b                   (count in Korean)
//	word "inbound"       inbound               수신 방향
//	detail "modified …"  modified …            …에 수정됨: the detail of a change, which recordings hold in English
//	hostport h p         10.0.0.1:53 [::1]:53 10.0.0.1 (port 0)
//	port p               53, PORT (port 0)
//	pingsize peer 1400   1372, for IPv6 1352: the ping payload that makes an IP length
//	less .flows .min     whether a feature, which may be whole, is less than a threshold
//	at_most 0 100        0.026: the share that may be bad although 0 of 100 were (AtMost)
//	name "A a.test, …"   a.test: the first name of examples, for a command; NAME if there is none that a shell takes as it is
//	pid "nginx (pid 7)"  7, for a command; PID if there is none
//	v6 peer              whether the address is IPv6
var funcs = map[string]template.FuncMap{"en": funcMap(english), "ko": funcMap(korean)}

// units are the words that differ by language.
type units struct {
	percent, bytes                      string
	micro, milli, second                string
	minute, hour, day                   string
	gap                                 string // between the parts of a duration
	perSecond, perMinute, lessThanShare string
	words                               map[string]string
	details                             []detail
}

// detail is what package capture/host says of a change, and the same in another language; the kernel's words stay.
type detail struct {
	said *regexp.Regexp
	as   string
}

var (
	english = units{" %", " bytes", " µs", " ms", " s", " min", " h", " d", " ", "%s per second", "%s per minute", "less than 0.01 %", map[string]string{
		"connect": "connecting", "first-byte": "waiting for the first byte", "transfer": "receiving the answer", "dns": "resolving names",
		"arriving": "receiving the request", "accept": "waiting to be taken up", "own": "inside the program", "sending": "sending the answer",
		"not-reading": "waiting for the client to read",
	}, nil}
	korean = units{"%", "바이트", "µs", "ms", "초", "분", "시간", "일", " ", "초당 %s", "분당 %s", "0.01% 미만", map[string]string{
		"inbound": "수신 방향", "outbound": "송신 방향",
		"connect": "연결", "first-byte": "첫 응답", "transfer": "전송", "dns": "이름 해석",
		"arriving": "요청 수신", "accept": "처리 시작 대기", "own": "프로그램 내부", "sending": "응답 전송", "not-reading": "클라이언트 미수신",
		"process-start": "프로세스 시작", "software": "소프트웨어", "link": "링크", "route": "경로", "neighbour": "이웃", "filter": "캡처 필터", "capture": "캡처",
	}, []detail{
		{regexp.MustCompile(`^started ([0-9.]+) s before its listener was seen$`), "수신 대기가 보이기 ${1}초 전에 시작"},
		{regexp.MustCompile(`^modified at (\S+), after the last boot; `), "마지막 부팅 뒤 ${1}에 수정됨, "},
		{regexp.MustCompile(`\bpackages were installed, changed or removed$`), "패키지 설치, 변경 또는 삭제"},
		{regexp.MustCompile(`\bruns as (.+? \(pid [0-9]+\))`), "$1(으)로 실행 중"},
		{regexp.MustCompile(`, and was replaced or removed since$`), ", 이후 교체되거나 삭제됨"},
	}}
)

// What examples of names and names of processes look like. A name that a shell would not take for one word is left out.
var (
	exampleName = regexp.MustCompile(`^[A-Z0-9]+ ([A-Za-z0-9_][A-Za-z0-9._-]*)(?:,|;| |$)`)
	processID   = regexp.MustCompile(`\(pid ([0-9]+)\)`)
)

func funcMap(u units) template.FuncMap {
	return template.FuncMap{
		"percent":  one(u.share),
		"duration": one(u.duration),
		"bytes":    one(func(v float64) string { return thousands(v) + u.bytes }),
		"count":    one(thousands),
		"decimal":  one(decimal),
		"rate":     one(u.rate),
		"plural": func(n any, singular, plural string) (string, error) {
			v, err := number(n)
			if v == 1 {
				plural = singular
			}
			return thousands(v) + " " + plural, err
		},
		"word": func(s string) string {
			if w, ok := u.words[s]; ok {
				return w
			}
			return s
		},
		"detail": func(s string) string {
			for _, d := range u.details {
				s = d.said.ReplaceAllString(s, d.as)
			}
			return s
		},
		"hostport": func(host string, port int) string {
			switch {
			case port == 0:
				return host
			case strings.Contains(host, ":"):
				return "[" + host + "]:" + strconv.Itoa(port)
			}
			return host + ":" + strconv.Itoa(port)
		},
		"port": func(port int) string {
			if port == 0 {
				return "PORT"
			}
			return strconv.Itoa(port)
		},
		"pingsize": func(peer string, ipLen any) (string, error) {
			v, err := number(ipLen)
			header := 20 + 8.0 // IPv4 and ICMP (RFC 791 §3.1, RFC 792)
			if strings.Contains(peer, ":") {
				header = 40 + 8 // IPv6 and ICMPv6 (RFC 8200 §3, RFC 4443 §4.1)
			}
			return strconv.FormatFloat(math.Round(max(v-header, 0)), 'f', 0, 64), err
		},
		"at_most": AtMost,
		"less": func(a, b any) (bool, error) { // a feature, which may be whole, than a threshold, which is not
			x, err := number(a)
			if err != nil {
				return false, err
			}
			y, err := number(b)
			return x < y, err
		},
		"name": func(examples string) string {
			if m := exampleName.FindStringSubmatch(examples); m != nil {
				return m[1]
			}
			return "NAME"
		},
		"pid": func(process string) string {
			if m := processID.FindStringSubmatch(process); m != nil {
				return m[1]
			}
			return "PID"
		},
		"v6": func(addr string) bool { return strings.Contains(addr, ":") },
	}
}

// one makes a template function of a formatting one.
func one(f func(float64) string) func(any) (string, error) {
	return func(a any) (string, error) {
		v, err := number(a)
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return "–", err
		}
		return f(v), err
	}
}

func number(a any) (float64, error) {
	v := reflect.ValueOf(a)
	switch {
	case v.CanInt():
		return float64(v.Int()), nil
	case v.CanUint():
		return float64(v.Uint()), nil
	case v.CanFloat():
		return v.Float(), nil
	}
	return 0, fmt.Errorf("expected a number, found %T", a)
}

// share prints v as a percentage. What is not all never prints as 100, what is not
// nothing never as 0.
func (u units) share(v float64) string {
	p := v * 100
	var s string
	switch {
	case p > 0 && p < 0.01:
		return u.lessThanShare
	case p < 1:
		s = trimZeros(strconv.FormatFloat(p, 'f', 2, 64))
	case p < 10, p > 99 && p < 100:
		s = trimZeros(strconv.FormatFloat(p, 'f', 1, 64))
	default:
		s = strconv.FormatFloat(p, 'f', 0, 64)
	}
	if s == "100" && p < 100 {
		s = "99.9"
	}
	return s + u.percent
}

func (u units) duration(s float64) string {
	if s < 0 {
		s = 0
	}
	part := func(v float64, unit string) string { return strconv.FormatFloat(v, 'f', 0, 64) + unit }
	pair := func(a float64, ua string, b float64, ub string) string {
		if b == 0 {
			return part(a, ua)
		}
		return part(a, ua) + u.gap + part(b, ub)
	}
	switch {
	case s == 0:
		return "0" + u.second
	case s < 0.001:
		return part(math.Round(s*1e6), u.micro)
	case s < 0.01:
		return trimZeros(strconv.FormatFloat(s*1000, 'f', 1, 64)) + u.milli
	case s < 0.9995:
		return part(math.Round(s*1000), u.milli)
	case s < 9.95:
		return trimZeros(strconv.FormatFloat(s, 'f', 1, 64)) + u.second
	case s < 59.5:
		return part(math.Round(s), u.second)
	case s < 3599.5:
		t := math.Round(s)
		return pair(math.Floor(t/60), u.minute, math.Mod(t, 60), u.second)
	case s < 86370:
		t := math.Round(s / 60)
		return pair(math.Floor(t/60), u.hour, math.Mod(t, 60), u.minute)
	}
	t := math.Round(s / 3600)
	return pair(math.Floor(t/24), u.day, math.Mod(t, 24), u.hour)
}

func (u units) rate(v float64) string {
	if v != 0 && math.Abs(v) < 0.1 {
		return fmt.Sprintf(u.perMinute, decimal(v*60))
	}
	return fmt.Sprintf(u.perSecond, decimal(v))
}

// decimal prints one decimal below 10.
func decimal(v float64) string {
	if math.Abs(v) < 9.95 {
		return trimZeros(strconv.FormatFloat(v, 'f', 1, 64))
	}
	return thousands(v)
}

// thousands prints v rounded, in groups of three.
func thousands(v float64) string {
	s := strconv.FormatFloat(math.Round(v), 'f', 0, 64)
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	if s == "0" {
		sign = ""
	}
	return sign + s
}

func trimZeros(s string) string {
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	if s == "-0" {
		return "0"
	}
	return s
}
