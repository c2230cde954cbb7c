package nft

import "golang.org/x/sys/unix"

// An exit is how a packet leaves a stage. The zero value drops it.
type exit struct {
	verdict int32 // nfDrop, nfAccept, NFT_RETURN, NFT_GOTO
	chain   string
}

// exits has the exit of each outcome of a line, report left out. A stage says what a line means, its exits what that means at
// the place where the stage is used: an allowed packet leaves the table, or goes on to the endpoint at the other end of its
// way.
type exits [3]exit

func goTo(chain string) exit { return exit{unix.NFT_GOTO, chain} }

// String returns the exit as nft(8) reads it.
func (x exit) String() string {
	switch x.verdict {
	case nfAccept:
		return "accept"
	case unix.NFT_RETURN:
		return "return"
	case unix.NFT_GOTO:
		return "goto " + x.chain
	}
	return "drop"
}

// denial returns the exit of denied packets where they may be answered.
func (u *builder) denial() exit {
	if u.settings.Reject {
		return goTo(rejectChain)
	}
	return exit{}
}
