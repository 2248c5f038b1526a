package report

import (
	"regexp"
	"strings"
	"sync"
)

// Note is what a piece of evidence says, in the language. Records say it in English.
func (l Lang) Note(note string) string {
	if l != Korean || note == "" {
		return note
	}
	if ko, ok := koreanNote(note); ok {
		return ko
	}
	// "A name: what became of the query."
	if name, what, ok := strings.Cut(note, ": "); ok {
		if ko, ok := koreanNote(what); ok {
			return name + ": " + ko
		}
	}
	return note
}

func koreanNote(note string) (string, bool) {
	for _, p := range notePatterns() {
		if p.en.MatchString(note) {
			return p.en.ReplaceAllString(note, p.ko), true
		}
	}
	return note, false
}

type notePattern struct {
	en *regexp.Regexp
	ko string
}

// notePatterns are the notes that detectors write: a test holds them against the detectors. A * stands for a number, a time or a name.
var notePatterns = sync.OnceValue(func() (list []notePattern) {
	number := strings.NewReplacer(`\*`, `(.+?)`)
	for i := 0; i < len(notes); i += 2 {
		list = append(list, notePattern{regexp.MustCompile("^" + number.Replace(regexp.QuoteMeta(notes[i])) + "$"), notes[i+1]})
	}
	return list
})

var notes = []string{
	"CLOSE_WAIT, read to the end", "CLOSE_WAIT, 끝까지 읽음",
	"CLOSE_WAIT, never accepted", "CLOSE_WAIT, accept되지 않음",
	"CLOSE_WAIT, data unread", "CLOSE_WAIT, 읽지 않은 데이터 있음",
	"FIN acknowledged, not answered by a FIN", "FIN에 확인응답만 하고 FIN은 보내지 않음",
	"window closed", "수신 윈도 닫힘",
	"requests are taken, and nobody is answered", "요청을 받았으나 아무에게도 답하지 않음",
	"sent as soon as the delayed acknowledgement had come", "지연 확인응답이 오자마자 전송",
	"a receive window stays closed", "수신 윈도가 닫힌 채로 있음",
	"an answer stops in the middle and goes on by itself, all of it acknowledged: its sender paused", "응답이 중간에 멈췄다가 스스로 이어짐, 모두 확인응답됨: 보내는 쪽이 쉼",
	"cut to fit a window smaller than a segment", "세그먼트보다 작은 수신 윈도에 맞춰 잘림",
	"a handshake that is never completed: SYN and SYN-ACK come again", "끝나지 않는 핸드셰이크: SYN과 SYN-ACK가 거듭 옴",
	"stands still: data outstanding, nothing of it is acknowledged", "멈춤: 보낸 데이터가 전혀 확인응답되지 않음",
	"a SYN without an answer", "응답 없는 SYN",
	"the SYN was answered after * s", "SYN에 ${1}초 뒤 응답",
	"request without a byte in answer", "응답이 한 바이트도 없는 요청",
	"data sent again * times in * s, nothing comes back", "${2}초 동안 데이터 ${1}번 재전송, 아무것도 돌아오지 않음",
	"probed * times in * s, nothing comes back", "${2}초 동안 ${1}번 탐지(probe), 아무것도 돌아오지 않음",
	"data sent again * times in * s, * times answered by the acknowledgement of what came before",
	"${2}초 동안 데이터 ${1}번 재전송, 그중 ${3}번은 이전 것에 대한 확인응답만 돌아옴",
	"probed * times in * s, * times answered by the acknowledgement of what came before",
	"${2}초 동안 ${1}번 탐지(probe), 그중 ${3}번은 이전 것에 대한 확인응답만 돌아옴",
	"data sent again * times, nothing came back for * s", "데이터 ${1}번 재전송, ${2}초 동안 아무것도 돌아오지 않음",
	"probed * times, nothing came back for * s", "${1}번 탐지(probe), ${2}초 동안 아무것도 돌아오지 않음",
	"new connection", "새 연결",
	"one of its sockets", "그 출처의 소켓 하나",
	"answered after *", "$1 뒤 응답",
	"answered by *, which was not asked", "묻지 않은 ${1}에서 응답",
	"no answer", "응답 없음",
	"FORMERR", "FORMERR 응답",
	"SERVFAIL", "SERVFAIL 응답",
	"NOTIMP", "NOTIMP 응답",
	"REFUSED", "REFUSED 응답",
	"slow answer", "느린 응답",
	"given up", "기다리다 포기함",
	"failed", "실패",
	"refused", "거부됨",
	"no answer to the SYN", "SYN에 응답 없음",
	"ICMP: unreachable", "ICMP: 도달할 수 없음",
	"captured before", "이미 캡처된 패킷",
	"tcp_info: segments sent again", "tcp_info: 세그먼트 재전송",
	"sent again", "재전송",
	"sent again, and again", "거듭 재전송",
	"sent again, nothing comes back", "재전송, 아무것도 돌아오지 않음",
	"sent again; its receiver goes on asking", "재전송, 받는 쪽은 계속 요청함",
	"data before this segment is missing", "이 세그먼트 앞의 데이터가 빠짐",
	"what is missing before this segment never comes", "이 세그먼트 앞의 빠진 데이터가 끝내 오지 않음",
	"the sender stands still in the middle of a write", "송신 측이 쓰는 도중에 멈춤",
	"SYN repeated", "SYN 재전송",
	"SYN-ACK repeated", "SYN-ACK 재전송",
	"a RST and its answer, again and again", "RST와 그 응답이 되풀이됨",
	"the SYN is answered by an acknowledgement of something older", "SYN에 더 오래된 것의 확인응답이 옴",
	"the SYN is answered from *", "SYN의 응답이 ${1}에서 옴",
	"* resets seen at * that * has not seen", "${2}에서는 보이고 ${3}에서는 보이지 않은 RST ${1}개",
	"* ms from * to *, * ms before", "${2}에서 ${3}까지 ${1}ms, 이전 ${4}ms",
	"* packets doubled and * overtaken between * and *", "${3}과 ${4} 사이에서 중복 패킷 ${1}개, 순서 바뀜 ${2}개",
	"* of * segments from * did not reach *", "${3}의 세그먼트 ${2}개 중 ${1}개가 ${4}에 도착하지 않음",
	"RST: late_answer", "RST: 클라이언트가 떠난 뒤의 응답",
	"RST: right after an answer, by a server that used to close", "RST: 정상으로 닫던 서버가 응답 직후 끊음",
	"RST: abort", "RST: 주고받는 도중에 끊김",
	"RST: idle", "RST: 오랜 침묵 뒤",
	"RST: overflow", "RST: accept 대기열 포화",
	"RST: timeout", "RST: 재전송 포기",
	"RST: late_request", "RST: 닫힌 뒤에 온 요청",
	"FIN: no_answer", "FIN: 응답 없이 닫음",
}
