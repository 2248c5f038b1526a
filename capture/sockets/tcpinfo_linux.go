package sockets

import "jindan/capture"

// infoSize is the part of struct tcp_info that is read, in bytes: up to tcpi_total_rto (Linux 6.7).
// Linux 3.10 returns 104 bytes, 6.18 280; the structure only ever grows at its end.
const infoSize = 242

// noRTT stands in tcpi_min_rtt before the first measurement (tcp_init_sock).
const noRTT = 1<<32 - 1

// decodeInfo reads a struct tcp_info (include/uapi/linux/tcp.h) as far as the kernel returned it.
// The window scales are bit fields, snd_wscale the lower one as little-endian machines have it.
func decodeInfo(b []byte, t *capture.TCPInfo) {
	if len(b) < infoSize {
		var whole [infoSize]byte // what is missing is 0
		copy(whole[:], b)
		b = whole[:]
	}
	b = b[:infoSize]
	*t = capture.TCPInfo{
		State:         b[0],
		CAState:       b[1],
		Retransmits:   b[2],
		Backoff:       b[4],
		Options:       b[5],
		SndWscale:     b[6] & 0xf,
		RcvWscale:     b[6] >> 4,
		RTO:           native.Uint32(b[8:]),
		ATO:           native.Uint32(b[12:]),
		SndMSS:        native.Uint32(b[16:]),
		RcvMSS:        native.Uint32(b[20:]),
		Unacked:       native.Uint32(b[24:]),
		Lost:          native.Uint32(b[32:]),
		Retrans:       native.Uint32(b[36:]),
		LastDataSent:  native.Uint32(b[44:]),
		LastDataRecv:  native.Uint32(b[52:]),
		LastAckRecv:   native.Uint32(b[56:]),
		PMTU:          native.Uint32(b[60:]),
		RTT:           native.Uint32(b[68:]),
		RTTVar:        native.Uint32(b[72:]),
		SndSsthresh:   native.Uint32(b[76:]),
		SndCwnd:       native.Uint32(b[80:]),
		AdvMSS:        native.Uint32(b[84:]),
		Reordering:    native.Uint32(b[88:]),
		TotalRetrans:  native.Uint32(b[100:]),
		BytesAcked:    native.Uint64(b[120:]),
		BytesReceived: native.Uint64(b[128:]),
		SegsOut:       native.Uint32(b[136:]),
		SegsIn:        native.Uint32(b[140:]),
		NotsentBytes:  native.Uint32(b[144:]),
		MinRTT:        native.Uint32(b[148:]),
		DataSegsIn:    native.Uint32(b[152:]),
		DataSegsOut:   native.Uint32(b[156:]),
		RwndLimited:   native.Uint64(b[176:]),
		SndbufLimited: native.Uint64(b[184:]),
		BytesSent:     native.Uint64(b[200:]),
		BytesRetrans:  native.Uint64(b[208:]),
		DSACKDups:     native.Uint32(b[216:]),
		Reord:         native.Uint32(b[220:]),
		OutOfOrder:    native.Uint32(b[224:]),
		SndWnd:        native.Uint32(b[228:]),
		RcvWnd:        native.Uint32(b[232:]),
		TotalRTO:      native.Uint16(b[240:]),
	}
	if t.MinRTT == noRTT {
		t.MinRTT = 0
	}
}
