package report

import (
	"fmt"

	"jindan/analyze"
	"jindan/analyze/view"
	"jindan/cmd/internal/report/svg"
)

// worst is the direction between the hosts of a subject, or of all if it has none, in which most was lost since the onset.
func (b *builder) worst(root *analyze.Finding) *view.Direction {
	var worst *view.Direction
	var most sentLost
	_, onset := b.slots(root)
	for i := range b.v.Flows {
		d := &b.v.Flows[i]
		if !onWay(root.Subject, d) {
			continue
		}
		var n sentLost
		b.add(&n, d, onset, view.Slots)
		if worst == nil || n.lost > most.lost || n.lost == most.lost && n.sent > most.sent {
			worst, most = d, n
		}
	}
	return worst
}

// className names a size class of IP packets.
func className(class int) analyze.Text {
	below := view.ClassBelow
	switch {
	case class == 0:
		return analyze.Text{En: "SYN, SYN-ACK", Ko: "SYN, SYN-ACK"}
	case class == 1:
		return texts("below %s bytes", "%s바이트 미만", count(below[1]))
	case below[class] == 0:
		return texts("%s bytes and more", "%s바이트 이상", count(below[class-1]))
	}
	return texts("%s–%s bytes", "%s–%s바이트", count(below[class-1]), count(below[class]-1))
}

// sizes draws the share that arrives by size class, before and after the onset.
func (b *builder) sizes(suffix string, root *analyze.Finding) section {
	s := section{ID: "sizes" + suffix, Name: analyze.Text{En: "What gets through", Ko: "통과하는 것"}}
	type line struct {
		name                             analyze.Text
		fared                            analyze.Text // what became of those that were not lost
		since                            analyze.Text // from when on they are counted
		before, lostBefore, after, lost2 uint64
	}
	came, answered := analyze.Text{En: "arrived", Ko: "도착"}, analyze.Text{En: "were answered", Ko: "응답받음"}
	var lines []line
	before, since := b.slots(root)
	from := b.v.Bucket(root.Onset)
	fine := b.since(b.v.At(from), root.Onset)
	d := b.worst(root)
	dir := analyze.Text{}
	if d != nil {
		dir = same(d.From + " → " + d.To)
		for class := 1; class < view.Classes; class++ {
			l := line{name: className(class), fared: came, since: b.since(b.v.SlotAt(since), root.Onset)}
			for slot := range view.Slots {
				switch sent, lost := b.cell(d, slot, class); {
				case slot < before:
					l.before, l.lostBefore = l.before+sent, l.lostBefore+lost
				case slot >= since:
					l.after, l.lost2 = l.after+sent, l.lost2+lost
				}
			}
			if l.before+l.after > 0 {
				lines = append(lines, l)
			}
		}
	}
	if n := b.called(root); n.unopened > 0 {
		lines = append(lines, line{texts("Calls to %s", "%s에 대한 호출", endpoint(root.Subject.Peer, root.Subject.Port)), answered, fine, n.requestsBefore + n.unopenedBefore, n.unopenedBefore,
			n.requests + n.unopened, n.unopened})
		dir = analyze.Text{}
	}
	for i := range b.v.Resolvers {
		r := &b.v.Resolvers[i]
		if s := root.Subject; r.Client != s.Host || s.Peer != "" && r.Server != s.Peer {
			continue
		}
		l := line{name: analyze.Text{En: "DNS answers", Ko: "DNS 응답"}, fared: came, since: fine}
		if root.Subject.Peer == "" {
			l.name = texts("DNS answers of %s", "%s의 DNS 응답", r.Server)
		}
		l.lostBefore, l.lost2 = r.Unanswered.Sum(0, from), r.Unanswered.Sum(from, view.MaxBuckets)
		l.before, l.after = r.Answered.Sum(0, from)+l.lostBefore, r.Answered.Sum(from, view.MaxBuckets)+l.lost2
		if l.before+l.after > 0 {
			lines = append(lines, l)
		}
	}
	if len(lines) == 0 {
		s.Claim = analyze.Text{En: "No data was exchanged that could have been lost.", Ko: "유실될 수 있는 데이터가 오가지 않았습니다."}
		s.Without = analyze.Text{En: "No picture: packets with data between these hosts are needed.", Ko: "두 호스트 사이의 데이터 패킷이 없어 그림이 없습니다."}
		return s
	}
	worst := lines[0]
	for _, l := range lines {
		if l.lost2 > worst.lost2 {
			worst = l
		}
	}
	arrived := func(lost, of uint64) analyze.Text {
		if of == 0 {
			return analyze.Text{En: "none seen", Ko: "없음"}
		}
		return texts("%s of %s", "%[2]s개 중 %[1]s개", count(of-lost), count(of))
	}
	sent := uint64(0)
	for _, l := range lines {
		sent += l.after
	}
	switch {
	case sent == 0:
		s.Claim = texts("Nothing was sent since the onset that could have been lost%s.", "시작 이후 유실될 수 있는 것을 보내지 않았습니다%s.", in(dir))
	case worst.lost2 == 0:
		s.Claim = texts("Everything gets through: nothing of what was sent since the onset is known to be lost%s.", "시작 이후 보낸 것 중 유실로 확인된 것이 없습니다%s.", in(dir))
	default:
		s.Claim = texts("%s: %s %s %s, before %s%s.", "%s: %s %s %s, 이전 %s%s.", worst.name, worst.since,
			arrived(worst.lost2, worst.after), worst.fared, arrived(worst.lostBefore, worst.before), in(dir))
	}

	const left, right, top = 250.0, 690.0, 40.0
	h := top + float64(len(lines))*rowHeight + 12
	p := &svg.Picture{ID: s.ID, W: picWidth, H: svg.Num(h)}
	x := svg.Scale{V0: 0, V1: 1, X0: left, X1: right}
	for i := range 5 {
		v := float64(i) / 4
		p.Line("grid", x.At(v), top-8, x.At(v), h-8)
		p.Text("muted", "middle", svg.Small, x.At(v), top-16, 0, same(fmt.Sprintf("%d %%", i*25)))
	}
	s.Table.Head = []analyze.Text{{En: "what", Ko: "종류"}, {En: "got through before the onset", Ko: "시작 전 통과"}, {En: "share", Ko: "비율"},
		{En: "got through since", Ko: "시작 후 통과"}, {En: "share", Ko: "비율"}}
	for i, l := range lines {
		y := top + float64(i)*rowHeight + 12
		p.Text("strong", "start", svg.Normal, 0, y+4, left-20, l.name)
		var a, z float64
		if l.before > 0 {
			a = x.At(1 - float64(l.lostBefore)/float64(l.before))
		}
		if l.after > 0 {
			z = x.At(1 - float64(l.lost2)/float64(l.after))
		}
		if l.before > 0 && l.after > 0 {
			p.Line("dumbbell", a, y, z, y)
		}
		if l.before > 0 {
			p.Circle("before", a, y, 7)
		}
		if l.after > 0 {
			class := "after"
			if l.lost2 > 0 {
				class = "bad"
			}
			p.Diamond(class, z, y, 5.5)
		}
		p.Text("muted", "start", svg.Small, right+24, y-4, 280, texts("before: %s", "이전: %s", arrived(l.lostBefore, l.before)))
		p.Text("", "start", svg.Small, right+24, y+11, 280, texts("since: %s (%s)", "이후: %s(%s)", arrived(l.lost2, l.after), share(l.after-l.lost2, l.after)))
		s.Table.Rows = append(s.Table.Rows, []analyze.Text{l.name, arrived(l.lostBefore, l.before), same(share(l.before-l.lostBefore, l.before)),
			arrived(l.lost2, l.after), same(share(l.after-l.lost2, l.after))})
	}
	s.Picture = p
	s.Legend = []legend{{"before", "○", analyze.Text{En: "before the onset", Ko: "시작 전"}}, {"bad", "◆", analyze.Text{En: "since the onset", Ko: "시작 후"}}}
	s.Notes = append(s.Notes, texts("%s Sizes are those of IP packets. Calls and DNS queries: %s.", "%s 크기는 IP 패킷 기준입니다. 호출과 DNS 질의는 %s입니다.", b.inSteps(since), fine))
	return s
}

// in is ", " and a direction, where there is one.
func in(t analyze.Text) analyze.Text {
	if t.En == "" {
		return t
	}
	return analyze.Text{En: ", " + t.En, Ko: ", " + t.Ko}
}
