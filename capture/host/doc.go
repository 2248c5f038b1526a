// Package host samples what a Linux host says of itself: the counters and limits of its network stack (procfs), its
// interfaces (rtnetlink), what changed on it (links, routes, next hops, processes, software, the clock), and, when asked,
// which processes own given sockets and what their threads wait for.
//
// Nothing here fails a sample: a file that is missing or that cannot be understood leaves its values unknown, and a netlink
// socket that breaks is opened again. No payload is read.
package host
