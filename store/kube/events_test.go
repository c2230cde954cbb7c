package kube

import (
	"strings"
	"testing"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"margay/store"
)

// TestEventNames: a name is one that the server takes, and another one for whatever tells notices apart.
func TestEventNames(t *testing.T) {
	object := func(name, uid string) *corev1.ObjectReference {
		return &corev1.ObjectReference{Name: name, UID: types.UID(uid)}
	}
	long := strings.Repeat("a", 235) + "." + strings.Repeat("b", 17)
	names := map[string]bool{}
	for _, c := range []struct {
		notice store.Notice
		object *corev1.ObjectReference
	}{
		{store.Notice{ID: "a", Reason: "R"}, object("p", "1")},
		{store.Notice{ID: "b", Reason: "R"}, object("p", "1")},
		{store.Notice{ID: "a", Reason: "S"}, object("p", "1")},
		{store.Notice{ID: "a", Reason: "R"}, object("p", "2")},
		{store.Notice{ID: "a", Reason: "R"}, object("q", "1")},
		{store.Notice{ID: "a", Reason: "R"}, object(long, "1")},
	} {
		name := eventName(c.notice, c.object)
		if errs := validation.IsDNS1123Subdomain(name); len(errs) > 0 || names[name] {
			t.Errorf("%q: %v, known: %v", name, errs, names[name])
		}
		names[name] = true
		other := c.notice
		other.Text, other.Node = "another text", "n"
		if eventName(other, c.object) != name {
			t.Errorf("%q depends on the text", name)
		}
	}
}

// TestShortMessage: a text of any length becomes one that an Event may have.
func TestShortMessage(t *testing.T) {
	for _, text := range []string{"", "short", strings.Repeat("x", maxMessage)} {
		if got := shortMessage(text); got != text {
			t.Errorf("%d bytes became %d", len(text), len(got))
		}
	}
	for _, text := range []string{strings.Repeat("x", maxMessage+1), strings.Repeat("ä", maxMessage), "x" + strings.Repeat("ä", maxMessage)} {
		if got := shortMessage(text); len(got) > maxMessage || !utf8.ValidString(got) || !strings.HasSuffix(got, "(margay status has it all)") {
			t.Errorf("%d bytes became %d: %q", len(text), len(got), got[len(got)-40:])
		}
	}
}
