package report

import (
	"fmt"
	"net"
	"strconv"
	"time"

	"jindan/analyze"
	"jindan/cmd/internal/report/svg"
)

// stageNames are the stages of a request as people read them.
var stageNames = map[string]analyze.Text{
	analyze.StageArriving:   {En: "receives the request", Ko: "요청 수신"},
	analyze.StageAccept:     {En: "waits to be taken up", Ko: "처리 시작 대기"},
	analyze.StageDNS:        {En: "resolves names", Ko: "이름 해석"},
	analyze.StageConnect:    {En: "connects to", Ko: "연결"},
	analyze.StageFirstByte:  {En: "waits for the answer of", Ko: "첫 응답 대기"},
	analyze.StageTransfer:   {En: "receives the answer of", Ko: "응답 전송 대기"},
	analyze.StageOwn:        {En: "is inside the program", Ko: "프로그램 내부"},
	analyze.StageSending:    {En: "sends the answer", Ko: "응답 전송"},
	analyze.StageNotReading: {En: "waits for the client to read", Ko: "클라이언트 미수신"},
}

func stageName(x *analyze.Stage) analyze.Text {
	name := stageNames[x.Stage]
	switch peer := net.JoinHostPort(x.Peer, strconv.Itoa(int(x.Port))); {
	case x.Peer != "" && x.Stage == analyze.StageDNS:
		return texts("%s at %s", "%s(%s)", name, peer)
	case x.Peer != "":
		return texts("%s %s", "%s(%s)", name, peer)
	}
	switch x.Stage {
	case analyze.StageConnect, analyze.StageFirstByte, analyze.StageTransfer:
		return texts("%s others", "%s(기타)", name)
	}
	return name
}

// stages draws where the time of a service's requests went, before the onset and since: of the first finding of the chain that knows.
func (b *builder) stages(suffix string, root *analyze.Finding, after []*analyze.Finding) section {
	s := section{ID: "stages" + suffix, Name: analyze.Text{En: "Stage by stage", Ko: "단계별 점검"}}
	t := root.Stages
	for _, f := range after {
		if t == nil {
			t = f.Stages
		}
	}
	if t == nil || len(t.Stages) == 0 {
		s.Claim = analyze.Text{En: "No service's requests are known to take longer.", Ko: "느려진 것으로 확인된 서비스 요청이 없습니다."}
		s.Without = analyze.Text{En: "No picture: packets with requests and answers of a service of this host are needed.",
			Ko: "이 호스트 서비스의 요청과 응답이 담긴 패킷이 없어 그림이 없습니다."}
		return s
	}
	span := func(v float64) analyze.Text {
		return both(func(l Lang) string { return l.span(time.Duration(v * 1e9)) })
	}
	service := net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port)))
	onset := analyze.Text{En: "the onset", Ko: "시작"}
	if b.since(t.Since, root.Onset) != b.since(root.Onset, root.Onset) { // of the finding that knows, not of its cause
		onset = b.say(func(r *text) string { return r.short(t.Since) })
	}
	s.Claim = texts("A request to %s took %s before %[4]s and takes %[3]s since.", "%s 요청 한 건의 시간이 %[4]s 전 %[2]s에서 이후 %[3]s입니다.",
		service, span(t.Time.Before), span(t.Time.After), onset)
	if t.Requests.Before == 0 {
		s.Claim = texts("A request to %s takes %s.", "%s 요청 한 건의 시간은 %s입니다.", service, span(t.Time.After))
	}
	if top, part := t.Top(); top != nil {
		of, rest := analyze.Text{}, analyze.Text{En: "extra time", Ko: "늘어난 시간의"}
		if q := t.Queue(); q >= 0.01 {
			of = texts(" %d %% of the extra time it waits to be taken up;", " 늘어난 시간의 %d%%는 처리 시작 대기,", int(100*q+0.5))
			rest = analyze.Text{En: "rest", Ko: "나머지의"}
		}
		s.Claim = texts("%s%s %[4]d %% of the %[3]s it %[5]s.", "%s%s %s %d%%: %s.", s.Claim, of, rest, int(100*part+0.5), stageName(top))
	}
	most := 0.0
	for _, x := range t.Stages {
		most = max(most, x.Time.Before, x.Time.After)
	}
	const left, right, top = 330.0, 680.0, 40.0
	h := top + float64(len(t.Stages))*rowHeight + 12
	p := &svg.Picture{ID: s.ID, W: picWidth, H: svg.Num(h)}
	x := svg.Scale{V0: 0, V1: most, X0: left, X1: right}
	for _, v := range svg.Ticks(0, most, 5) {
		p.Line("grid", x.At(v), top-8, x.At(v), h-8)
		p.Text("muted", "middle", svg.Small, x.At(v), top-16, 0, span(v))
	}
	s.Table.Head = []analyze.Text{{En: "stage", Ko: "단계"}, {En: "before the onset", Ko: "시작 전"}, {En: "since", Ko: "시작 후"},
		{En: "share of the extra time", Ko: "늘어난 시간 중 비율"}, {En: "entered before", Ko: "진입(전)"}, {En: "entered since", Ko: "진입(후)"}}
	for i := range t.Stages {
		st := &t.Stages[i]
		y := top + float64(i)*rowHeight + 12
		p.Text("strong", "start", svg.Normal, 0, y+4, left-20, stageName(st))
		p.Rect("bar", left, y-9, max(x.At(st.Time.Before)-left, 1), 7)
		p.Rect("bar hatched", left, y+1, max(x.At(st.Time.After)-left, 1), 7)
		part := same(fmt.Sprintf("%.1f %%", 100*st.Share))
		p.Text("", "start", svg.Small, right+24, y-4, 290, texts("%s → %s, %s of the extra time", "%s → %s, 늘어난 시간의 %s", span(st.Time.Before), span(st.Time.After), part))
		p.Text("muted", "start", svg.Small, right+24, y+11, 290, texts("entered %s times before, %s since", "진입 전 %s회, 후 %s회",
			count(uint64(st.Reached.Before)), count(uint64(st.Reached.After))))
		s.Table.Rows = append(s.Table.Rows, []analyze.Text{stageName(st), span(st.Time.Before), span(st.Time.After), part,
			same(count(uint64(st.Reached.Before))), same(count(uint64(st.Reached.After)))})
	}
	s.Picture = p
	s.Legend = []legend{{"bar", "▬", analyze.Text{En: "before the onset, for each request", Ko: "시작 전, 요청당"}},
		{"bar hatched", "▨", analyze.Text{En: "since the onset", Ko: "시작 후"}}}
	s.Notes = append(s.Notes, analyze.Text{En: "Time is the number of requests in a stage, added up over time and divided by the requests (Little's law); what no packet accounts for is inside the program: it computes, waits for a lock or for a free worker.",
		Ko: "단계에 있는 요청 수를 시간으로 합해 요청 수로 나눈 값입니다(리틀의 법칙). 패킷으로 설명되지 않는 시간은 프로그램 내부(계산, 잠금, 빈 작업 스레드 대기)입니다."})
	if t.Shared > 0 {
		s.Notes = append(s.Notes, texts("%s calls that began while several services were at work are in none of the stages but inside the program.",
			"여러 서비스가 동시에 일할 때 시작된 호출 %s건은 프로그램 내부에 들어 있습니다.", count(uint64(t.Shared))))
	}
	return s
}

// stages lists where the time of a service's requests went.
func (r *text) stages(t *analyze.Stages) {
	if t == nil {
		return
	}
	for i := range t.Stages {
		x := &t.Stages[i]
		span := func(v float64) string { return r.span(time.Duration(v * 1e9)) }
		r.entry(r.pick("  stage", "  단계"), dim, fmt.Sprintf(r.pick("%s: %s before, %s since, %.1f %% of the extra time; entered %s and %s times",
			"%s: 시작 전 %s, 후 %s, 늘어난 시간의 %.1f%%. 진입 %s회와 %s회"), r.Text(stageName(x)), span(x.Time.Before), span(x.Time.After), 100*x.Share,
			count(x.Reached.Before), count(x.Reached.After)), plain)
	}
}
