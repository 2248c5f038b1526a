package cli

import (
	"strings"
	"testing"
	"time"
)

func TestLangFromEnv(t *testing.T) {
	for _, c := range []struct{ env, want string }{
		{"", "en"}, {"LANG=ko_KR.UTF-8", "ko"}, {"LANG=en_US.UTF-8", "en"}, {"LANG=ko_KR.UTF-8 LC_ALL=C", "en"},
		{"LANG=C LC_MESSAGES=ko", "ko"}, {"LC_ALL=KO_kr", "ko"}, {"LANG=C.UTF-8", "en"},
	} {
		got := LangFromEnv(func(k string) string {
			for _, kv := range strings.Fields(c.env) {
				if v, ok := strings.CutPrefix(kv, k+"="); ok {
					return v
				}
			}
			return ""
		})
		if got != c.want {
			t.Errorf("%q: %s, want %s", c.env, got, c.want)
		}
	}
}

func TestZone(t *testing.T) {
	at := time.Date(2023, 11, 17, 0, 0, 0, 0, time.UTC)
	for s, want := range map[string]string{"UTC": "00:00", "": "00:00", "+09:00": "09:00", "-0330": "20:30", "+09": "09:00"} {
		z, err := Zone(s)
		if err != nil {
			t.Errorf("%q: %v", s, err)
		} else if got := at.In(z).Format("15:04"); got != want {
			t.Errorf("%q: %s, want %s", s, got, want)
		}
	}
	for _, s := range []string{"nowhere", "+99", "9"} {
		if _, err := Zone(s); err == nil {
			t.Errorf("%q: no error", s)
		}
	}
}
