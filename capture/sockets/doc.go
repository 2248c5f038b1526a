// Package sockets samples the TCP sockets of a Linux network namespace through
// sock_diag(7): [Dumper] makes one dump, [Source] one every second.
//
// The states are selected in the kernel. The request and the decoder are our
// own: the library's (github.com/vishvananda/netlink v1.3.1) has no state filter,
// exchanges the window scales, stops reading tcp_info at 232 bytes and gives up
// the rest of a dump after one message that it cannot read.
package sockets
