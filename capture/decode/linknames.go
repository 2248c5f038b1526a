package decode

// linkNames are those of link types that are met (https://www.tcpdump.org/linktypes.html), read here or not.
var linkNames = map[uint16]string{
	LinkNull: "NULL", LinkEthernet: "ETHERNET", 3: "AX25", 6: "IEEE802_5", 7: "ARCNET_BSD", 8: "SLIP", LinkPPP: "PPP", 10: "FDDI",
	LinkRawBSD: "RAW", LinkRawOBSD: "RAW", LinkPPPSerial: "PPP_HDLC", LinkPPPoE: "PPP_ETHER", LinkATM: "ATM_RFC1483", LinkRaw: "RAW",
	LinkCiscoHDLC: "C_HDLC", LinkIEEE80211: "IEEE802_11", LinkFrameRelay: "FRELAY", LinkLoop: "LOOP", LinkLinuxSLL: "LINUX_SLL",
	LinkPFLog: "PFLOG", LinkPrism: "IEEE802_11_PRISM", 122: "IP_OVER_FC", 123: "SUNATM", LinkRadioTap: "IEEE802_11_RADIOTAP",
	140: "MTP2", 141: "MTP3", 142: "SCCP", 143: "DOCSIS", 144: "LINUX_IRDA", LinkAVS: "IEEE802_11_AVS", 177: "LINUX_LAPD",
	187: "BLUETOOTH_HCI_H4", 189: "USB_LINUX", LinkPPI: "PPI", 195: "IEEE802_15_4_WITHFCS", 197: "ERF",
	201: "BLUETOOTH_HCI_H4_WITH_PHDR", LinkPPPDir: "PPP_WITH_DIR", LinkHDLCDir: "C_HDLC_WITH_DIR", LinkFrameRelayDir: "FRELAY_WITH_DIR",
	209: "I2C_LINUX", 215: "IEEE802_15_4_NONASK_PHY", LinkMPLS: "MPLS", 220: "USB_LINUX_MMAPPED", 224: "FC_2", 226: "IPNET",
	227: "CAN_SOCKETCAN", LinkIPv4: "IPV4", LinkIPv6: "IPV6", 230: "IEEE802_15_4_NOFCS", 231: "DBUS", LinkNFLog: "NFLOG",
	240: "NETANALYZER", 242: "IPOIB", 247: "INFINIBAND", 248: "SCTP", 249: "USBPCAP", 251: "BLUETOOTH_LE_LL", 252: "WIRESHARK_UPPER_PDU",
	253: "NETLINK", 254: "BLUETOOTH_LINUX_MONITOR", LinkPKTAP: "PKTAP", 265: "ISO_14443", 266: "RDS", 272: "NORDIC_BLE",
	LinkLinuxSLL2: "LINUX_SLL2", LinkDSABroadcom: "DSA_TAG_BRCM", LinkDSAPrepend: "DSA_TAG_BRCM_PREPEND", LinkDSA: "DSA_TAG_DSA",
	LinkEDSA: "DSA_TAG_EDSA", 288: "USB_2_0",
}

// LinkName is the name of a LINKTYPE_ value; empty if it has none here.
func LinkName(t uint16) string { return linkNames[t] }
