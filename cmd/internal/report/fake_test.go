package report

import (
	"time"

	"jindan/analyze"
	"jindan/capture"
)

// start is the time of the first packet of the fabricated captures: 08:40 in Seoul.
var start = capture.Instant(time.Date(2023, 11, 16, 23, 40, 3, 0, time.UTC).UnixNano())

func after(seconds float64) capture.Instant { return start.Add(time.Duration(seconds * 1e9)) }

const (
	server   = "10.77.2.2"
	upstream = "10.77.3.2"
)

// fakeFinding fills in what every finding has.
func fakeFinding(rule string, s analyze.Subject, at float64, en, ko, sumEn, sumKo string) *analyze.Finding {
	return &analyze.Finding{
		Schema: analyze.FindingSchema, ID: analyze.FindingID(rule, s), Seq: 1, Time: after(46), State: analyze.Update,
		Severity: "error", Rule: rule, Steps: []string{rule}, Subject: s, Onset: after(at), Detected: after(at + 2), LastSeen: after(46),
		Role: analyze.Independent, Because: []string{}, Features: map[string]any{"count": 3}, Evidence: []analyze.Evidence{},
		Title: analyze.Text{En: en, Ko: ko}, Summary: analyze.Text{En: sumEn, Ko: sumKo},
		Agent: "jindan/test", Filter: "ip.addr == " + s.Host,
	}
}

// outage is the rebuilt incident as jindan should see it at the verification server.
func outage() (Input, *analyze.Diagnosis) {
	svc := analyze.Subject{Kind: analyze.SubjectService, Host: server, Port: 8080}
	dns := analyze.Subject{Kind: analyze.SubjectResolver, Host: server, Peer: upstream, Port: 53}
	syn := svc
	syn.Segment = "syn"
	root := fakeFinding("size-dependent-loss",
		analyze.Subject{Kind: analyze.SubjectPath, Host: server, Peer: upstream, Direction: "inbound", Segment: "data"}, 14.002,
		"Size-dependent packet loss", "크기 의존 유실",
		"Between 10.77.3.2 and 10.77.2.2, inbound, 90 % of the segments of 1,400 bytes and more\nare lost (55 of 61; before: 0 %), but only 0 % of the smaller ones (0 of 190). 12 of 21 transfers stand still, and 39 of 43 repetitions were lost again.",
		"10.77.3.2 ↔ 10.77.2.2 구간, 수신 방향에서 1,400바이트 이상 패킷의 90%가 유실됩니다 (61개 중 55개, 이전 0%). 더 작은 패킷의 유실은 0%뿐입니다(190개 중 0개). 전송 21건 중 12건이 멈춰 있습니다. 재전송 43번 중 39번도 다시 유실됐습니다.")
	root.Role = analyze.Root
	root.Confidence = analyze.Confidence{Level: "high", Tests: []string{"order", "identity:same-path", "experiment:small-segments-pass"}}
	root.Next = []analyze.Text{
		{En: "Prove it and restore service without touching any device: on 10.77.2.2 run `ip route get 10.77.3.2`, then `ip route replace 10.77.3.2 via GATEWAY dev DEVICE advmss 1300`. New connections that now finish at once prove the size dependence (undo: `ip route del 10.77.3.2`).",
			Ko: "장비를 건드리지 않고 입증과 복구를 함께 하는 방법: 10.77.2.2에서 `ip route get 10.77.3.2` 확인 후 `ip route replace 10.77.3.2 via GATEWAY dev DEVICE advmss 1300`을 실행하십시오. 새 연결이 바로 완료되면 크기 의존 유실이 입증됩니다(되돌리기: `ip route del 10.77.3.2`)."},
		{En: "Sweep the size from 10.77.2.2: `ping -M do -c 50 -i 0.2 -s 1300 10.77.3.2` should pass, `ping -M do -c 50 -i 0.2 -s 1372 10.77.3.2` should lose about 90 % (both directions take part in a ping).",
			Ko: "10.77.2.2에서 크기를 바꿔 가며 확인: `ping -M do -c 50 -i 0.2 -s 1300 10.77.3.2`는 통과하고 `ping -M do -c 50 -i 0.2 -s 1372 10.77.3.2`는 약 90% 유실되어야 합니다(ping은 양방향을 모두 지납니다)."},
		{En: "Ask for small answers: `dig +bufsize=512 @10.77.3.2 NAME` and `dig +tcp @10.77.3.2 NAME` against `dig +bufsize=4096 +notcp @10.77.3.2 NAME`.",
			Ko: "작은 응답으로 비교: `dig +bufsize=512 @10.77.3.2 NAME`, `dig +tcp @10.77.3.2 NAME` 대 `dig +bufsize=4096 +notcp @10.77.3.2 NAME`."},
		{En: "Capture at the next point towards 10.77.3.2 at the same time, `tcpdump -s 128 -w next.pcap host 10.77.3.2`, and compare: `jindan analyze --point here=FILE --point next=next.pcap`.",
			Ko: "10.77.3.2 방향의 다음 지점에서 동시에 캡처해 비교하십시오. `tcpdump -s 128 -w next.pcap host 10.77.3.2`, `jindan analyze --point here=FILE --point next=next.pcap`."},
		{En: "Do not take a recovery after a restart for proof: it clears the backlog, and the loss stays.", Ko: "재시작 후의 회복을 증거로 삼지 마십시오. 적체만 비워지고 유실은 그대로입니다."},
	}
	root.Evidence = []analyze.Evidence{
		{At: after(14.5), Flow: "10.77.2.2:40112 > 10.77.3.2:8080", Frames: []uint64{8123, 8125, 8130}, Note: "1,448 bytes missing, never filled in 31.4 s"},
		{At: after(15.1), Flow: "10.77.2.2:40120 > 10.77.3.2:8080", Frames: []uint64{8290}, Note: "4,344 bytes missing"},
	}
	chain := []*analyze.Finding{root,
		fakeFinding("dns-unanswered", dns, 14.04, "DNS queries without an answer", "DNS 무응답",
			"10.77.3.2:53 leaves 161 of 190 queries of 10.77.2.2 unanswered (before: 0 of 280). The answers to the same names had 1,412 bytes.",
			"10.77.3.2:53이 10.77.2.2의 질의 190건 중 161건에 응답하지 않습니다(이전 280건 중 0건). 같은 이름의 응답은 1,412바이트였습니다."),
		fakeFinding("pool-exhausted", svc, 14.84, "Thread-pool exhaustion", "스레드 풀 고갈",
			"10.77.2.2:8080 works on 16 requests at a time and no more, while 65 wait (before: 0 wait). All 16 wait for 10.77.3.2:53.",
			"10.77.2.2:8080이 동시에 16건만 처리하고 65건이 대기 중입니다(이전 대기 0건). 16건 모두 10.77.3.2:53을 기다립니다."),
		fakeFinding("close-wait", svc, 17.16, "CLOSE_WAIT accumulation", "CLOSE_WAIT 적체",
			"72 connections of 10.77.2.2:8080 wait in CLOSE_WAIT (before: 0), half of them for more than 12 s, the oldest for 28 s. Class STARVED: their clients gave up before any answer.",
			"10.77.2.2:8080의 연결 72개가 CLOSE_WAIT에 머물러 있습니다(이전 0개). 절반은 12초 이상, 가장 오래된 것은 28초째입니다."),
		fakeFinding("abnormal-termination", svc, 18.2, "Abnormal termination", "통신 비정상 종료",
			"72 connections to 10.77.2.2:8080 ended with a reset by the client because the answer came after it had closed (LATE-ANSWER).",
			"10.77.2.2:8080 연결 72개에서 클라이언트가 닫은 뒤 응답이 도착해 리셋됐습니다(LATE-ANSWER)."),
		fakeFinding("retransmission", syn, 20.0, "Connection requests (SYN) repeated", "연결 요청(SYN) 반복",
			"62 % of 1,402 connection requests to 10.77.2.2:8080 had to be repeated (869; before: 0 %). The SYNs reached 10.77.2.2, which left 401 unanswered: nothing was lost on the way.",
			"10.77.2.2:8080에 대한 연결 요청 1,402건 중 62%를 다시 보내야 했습니다(869건, 이전 0%). SYN은 10.77.2.2에 도착했으므로 도중에 유실된 것이 아닙니다."),
	}
	chain[1].Stages = &analyze.Stages{Host: server, Port: 8080, Since: after(14.002), Requests: analyze.Counts{Before: 300, After: 160},
		Time: analyze.Times{Before: 0.004, After: 9}, Stages: []analyze.Stage{
			{Stage: analyze.StageAccept, Time: analyze.Times{After: 7}, Reached: analyze.Counts{Before: 300, After: 160}, Share: 0.78},
			{Stage: analyze.StageDNS, Peer: upstream, Port: 53, Time: analyze.Times{Before: 0.001, After: 1.9}, Reached: analyze.Counts{Before: 300, After: 140}, Share: 0.21},
			{Stage: analyze.StageOwn, Time: analyze.Times{Before: 0.003, After: 0.1}, Reached: analyze.Counts{Before: 300, After: 160}, Share: 0.01},
		}}
	d := &analyze.Diagnosis{Schema: analyze.DiagnosisSchema, Time: after(46), Roots: []string{root.ID},
		Summary: analyze.Text{En: "Size-dependent packet loss between 10.77.3.2 and 10.77.2.2, inbound.", Ko: "10.77.3.2 → 10.77.2.2 수신 방향의 크기 의존 유실."},
		Coverage: analyze.Coverage{Sources: []string{"server.pcap"}, First: start, Last: after(46.2), Packets: 24512, Connections: 1204, DNS: 530,
			Local: server, Locals: []string{server}, LocalBy: string(analyze.LocalByCommon)}}
	for i, f := range chain {
		d.Chain = append(d.Chain, f.ID)
		if i > 0 {
			f.Role, f.Because = analyze.Consequence, []string{chain[i-1].ID}
			f.Links = []analyze.Link{{ID: chain[i-1].ID, Tests: []analyze.Tried{{Test: "order", Result: "proven"}, {Test: "identity", Result: "not_observable"}}}}
			f.Confidence.Level = "high"
		}
	}
	d.Findings = chain
	rule := func(step, en, ko string) {
		d.Steps = append(d.Steps, analyze.StepVerdict{Step: step, Verdict: analyze.RuledOut, Reason: analyze.Text{En: en, Ko: ko}})
	}
	rule("slow-dns", "p95 of 29 answers is 1.2 ms, below 200 ms.", "응답 29건의 p95가 1.2ms로 200ms 미만입니다.")
	rule("load-balancer", "one server only, 10.77.2.2; no RST with a foreign TTL among 84.", "서버가 10.77.2.2 하나뿐이며 RST 84건 중 TTL이 다른 것은 없습니다.")
	rule("surge", "no source made more than 2.1 % of 1,402 connection requests.", "연결 요청 1,402건 중 2.1%를 넘는 출발지가 없습니다.")
	rule("path-cut", "10.77.3.2 was heard of in every second, in both directions.", "10.77.3.2와 매초 양방향 통신이 있었습니다.")
	rule("connection-refused", "0 of 1,402 connection requests were refused.", "연결 요청 1,402건 중 거부는 0건입니다.")
	for _, s := range []string{"port-error", "resources", "threads"} {
		d.Steps = append(d.Steps, analyze.StepVerdict{Step: s, Verdict: analyze.NotAssessable, Reason: analyze.Text{En: "needs host counters.", Ko: "호스트 카운터가 필요합니다."}})
	}
	d.Steps = append(d.Steps, analyze.StepVerdict{Step: "backend-skew", Verdict: analyze.NotAssessable,
		Reason: analyze.Text{En: "Not judged: one server only.", Ko: "판정 불가: 서버가 하나뿐입니다."}})
	return Input{Files: []File{{Name: "server.pcap", Packets: 24512}}}, d
}

// healthy is the same server on a good day.
func healthy() (Input, *analyze.Diagnosis) {
	in, d := outage()
	d.Roots, d.Chain, d.Findings = nil, nil, nil
	return in, d
}

type fakeCatalogue struct{}

func (fakeCatalogue) StepTitle(step string) analyze.Text {
	return map[string]analyze.Text{
		"slow-dns":      {En: "Slow DNS resolution", Ko: "DNS 지연"},
		"load-balancer": {En: "Load balancer", Ko: "L4 분산 이상"},
		"surge":         {En: "Surge from one source", Ko: "접속 폭주"},
		"path-cut":      {En: "Path cut", Ko: "경로 단절"},
		"port-error":    {En: "Port or NIC errors", Ko: "포트·NIC 오류"},
		"resources":     {En: "Exhausted resources", Ko: "자원 고갈"},
		"threads":       {En: "Threads of the program", Ko: "프로그램 스레드"},
	}[step]
}

func (fakeCatalogue) LookAlikes(rule string) []analyze.Text {
	if rule != "size-dependent-loss" {
		return nil
	}
	return []analyze.Text{
		{En: "A path-MTU black hole loses every packet above the limit (100 %), and repeating it never helps; here the share and the repetitions tell.", Ko: "경로 MTU 블랙홀은 한계를 넘는 패킷을 100% 잃고 재전송도 성공하지 못합니다. 유실률과 재전송 성공 여부로 구별합니다."},
		{En: "Uniform loss hits small segments as often as large ones (ratio about 1).", Ko: "균일 유실은 작은 패킷도 같은 비율로 잃습니다(비율 약 1)."},
		{En: "Policing loses by rate, not by size: it stops when the traffic falls.", Ko: "대역폭 제한(policing)은 크기가 아니라 속도에 따라 유실되며, 트래픽이 줄면 멈춥니다."},
	}
}

func (fakeCatalogue) Needs(step string) analyze.Text {
	switch step {
	case "port-error", "resources":
		return analyze.Text{En: "host counters (jindan run or jindan check on the host)", Ko: "호스트 카운터(해당 호스트에서 jindan run 또는 jindan check)"}
	case "threads":
		return analyze.Text{En: "the program's threads (jindan run or jindan check on the host)", Ko: "프로그램의 스레드 정보(해당 호스트에서 jindan run 또는 jindan check)"}
	}
	return analyze.Text{}
}
