package node

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	v3 "margay/api/v3"
	"margay/store"
)

const (
	garbage = `{"metadata":{"name":"web"},"spec":`
	// readable has a selector and a place that can be read; its rules cannot.
	readable = `{"metadata":{"name":"web"},"spec":{"tier":"default","order":10,"selector":"role == 'db'","ingress":17}}`
)

// faultNames returns the names of the kept files' objects that are faulty, as the last status has them.
func named(s store.NodeStatus, name string) bool {
	return slices.ContainsFunc(s.Faults, func(f string) bool { return strings.HasPrefix(f, name+": ") })
}

// files returns how many objects are kept. Nobody else may read anything of the directory.
func files(t *testing.T, dir string) (kept int) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	check(t, err)
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone in the meantime
		}
		check(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", e.Name(), info.Mode())
		}
		if e.Name() != socketName {
			kept++
		}
	}
	return kept
}

// The last good version stays in force while the stored value is faulty; everybody is told; the rest goes on.
func TestFaultKeepsLastGood(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill()
	r.begin()
	r.untilDenied("192.0.2.1", 80)
	r.untilReady()
	r.store.spoil(gnp("web"), garbage)
	r.untilStatus("the fault", func(s store.NodeStatus) bool {
		return named(s, "GlobalNetworkPolicy(web)") && s.Ready && strings.Contains(s.Detail, "revision 3 stays in force")
	})
	r.untilMetric(`margay_store_faults{kind="GlobalNetworkPolicy",name="web"} 1`)
	if code, body := r.get(healthAt, "/readiness"); code != 200 || !strings.Contains(body, "GlobalNetworkPolicy(web): does not decode") {
		t.Errorf("readiness %d:\n%s", code, body)
	}
	if !r.allows("eth0", "10.9.0.1", 80) || r.allows("eth0", "192.0.2.1", 80) {
		t.Error("the last good version is not in force")
	}
	r.put(v3.KindGlobalNetworkPolicy, `{"metadata":{"name":"more"},"spec":{"order":20,"types":["Ingress"],"ingress":[{"action":"Allow","protocol":"TCP","destination":{"ports":[81]}}]}}`)
	r.untilAllowed("192.0.2.1", 81)
	if n := r.log.count("stored object cannot be used"); n != 1 {
		t.Errorf("%d lines about one fault", n)
	}
	eventually(t, "the policy is kept, beside the host's own endpoint", func() bool { return files(t, r.options.StateDir) == 2 })

	r.put(v3.KindGlobalNetworkPolicy, strings.Replace(webPolicy, "[80]", "[82]", 1))
	r.untilAllowed("10.9.0.1", 82)
	r.untilStatus("no fault", func(s store.NodeStatus) bool { return len(s.Faults) == 0 && s.Detail == "" })
	if _, body := r.get(metricsAt, "/metrics"); strings.Contains(body, "margay_store_faults{") {
		t.Error("the metric still has the fault")
	}
	eventually(t, "the policy is no longer kept", func() bool { return files(t, r.options.StateDir) == 1 })
}

// Whatever the order of fault, restart and compaction: the last good version of a policy holds after a restart.
func TestFaultAfterRestart(t *testing.T) {
	for name, c := range map[string]struct {
		whileRunning, whileStopped func(*rig)
	}{
		"spoilt while running":                 {whileRunning: spoilWeb},
		"spoilt while running, compacted":      {whileRunning: spoilWeb, whileStopped: compact},
		"spoilt twice, compacted":              {whileRunning: spoilWeb, whileStopped: func(r *rig) { spoilWeb(r); compact(r) }},
		"spoilt while stopped":                 {whileStopped: spoilWeb},
		"compacted, then spoilt while running": {whileRunning: func(r *rig) { compact(r); spoilWeb(r) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.fill()
			r.begin()
			r.untilDenied("192.0.2.1", 80)
			if c.whileRunning != nil {
				c.whileRunning(r)
				r.untilStatus("the fault", func(s store.NodeStatus) bool { return named(s, "GlobalNetworkPolicy(web)") })
			}
			r.stop()
			if c.whileStopped != nil {
				c.whileStopped(r)
			}
			r.store.put(object(t, v3.KindTier, `{"metadata":{"name":"later"},"spec":{"order":5}}`))
			r.restart()
			r.untilReady()
			r.untilStatus("the fault again", func(s store.NodeStatus) bool { return s.Ready && named(s, "GlobalNetworkPolicy(web)") })
			if !r.allows("eth0", "10.9.0.1", 80) || r.allows("eth0", "192.0.2.1", 80) {
				t.Error("the last good version is not in force")
			}
		})
	}
}

func spoilWeb(r *rig) { r.store.spoil(gnp("web"), garbage) }
func compact(r *rig)  { r.store.compact() }

// When the last good version of a policy is lost, what the value still selects is denied, and all if it cannot be read.
func TestLostPolicyDenies(t *testing.T) {
	for name, c := range map[string]struct {
		value       string
		web, db     bool // eth0 (role web) and eth1 (role db) answer on port 80
		keepsOthers bool // a policy that comes before the lost one still allows port 81
	}{
		"selector and place readable": {value: readable, web: true, db: false, keepsOthers: true},
		"nothing readable":            {value: garbage},
		"not even a prefix":           {value: "\x00\xff"},
		"no value known":              {value: ""},
		"selector does not parse":     {value: `{"spec":{"tier":"default","order":10,"selector":"role = 'db'"}}`, keepsOthers: true},
		"selector has another type":   {value: `{"spec":{"tier":"default","order":10,"selector":["role"]}}`, keepsOthers: true},
		"no selector":                 {value: `{"spec":{"tier":"default","order":10}}`, keepsOthers: true},
		"order has another type":      {value: `{"spec":{"tier":"default","order":"ten","selector":"role == 'db'"}}`, web: true},
		"tier that does not exist":    {value: `{"spec":{"tier":"nowhere","order":10,"selector":"role == 'db'"}}`, web: true},
		"spec has another type":       {value: `{"spec":[]}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.fill()
			r.put(v3.KindHostEndpoint, `{"metadata":{"name":"h.eth1","labels":{"role":"db"}},"spec":{"node":"h","interfaceName":"eth1"}}`)
			r.put(v3.KindGlobalNetworkPolicy, `{"metadata":{"name":"first"},"spec":{"tier":"default","order":1,"types":["Ingress"],"ingress":[{"action":"Allow","protocol":"TCP","destination":{"ports":[81]}}]}}`)
			r.put(v3.KindGlobalNetworkPolicy, `{"metadata":{"name":"all"},"spec":{"tier":"default","order":99,"types":["Ingress"],"ingress":[{"action":"Allow"}]}}`)
			r.store.spoil(gnp("web"), c.value)
			r.store.compact()
			r.begin()
			r.untilReady()
			r.untilStatus("the fault and what is done about it", func(s store.NodeStatus) bool {
				return named(s, "GlobalNetworkPolicy(web)") && strings.Contains(s.Detail, "whatever it selects is denied")
			})
			if web, db := r.allows("eth0", "192.0.2.1", 80), r.allows("eth1", "192.0.2.1", 80); web != c.web || db != c.db {
				t.Errorf("web %v, db %v", web, db)
			}
			if got := r.allows("eth1", "192.0.2.1", 81); got != c.keepsOthers {
				t.Errorf("the policy before it allows: %v", got)
			}
			if !r.allows("eth1", "192.0.2.1", 22) {
				t.Error("failsafe ports are closed")
			}
			r.put(v3.KindGlobalNetworkPolicy, webPolicy)
			r.untilAllowed("10.9.0.1", 80)
		})
	}
}

// An object that was created faulty had no version that could be in force.
func TestFaultFromTheBeginning(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill()
	r.begin()
	r.untilDenied("192.0.2.1", 80)
	r.store.spoil(gnp("new"), garbage)
	r.untilStatus("the fault", func(s store.NodeStatus) bool { return named(s, "GlobalNetworkPolicy(new)") })
	if !r.allows("eth0", "10.9.0.1", 80) {
		t.Error("a policy that was never valid denies")
	}
	r.store.remove(gnp("new"))
	r.untilStatus("no fault", func(s store.NodeStatus) bool { return len(s.Faults) == 0 })
}

// A host endpoint whose last good version is lost would leave its interface open.
func TestLostHostEndpointStays(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill()
	r.begin()
	r.untilDenied("192.0.2.1", 80)
	r.untilReady()
	r.stop()
	r.store.spoil(v3.Key{Kind: v3.KindHostEndpoint, Name: "h.eth0"}, garbage)
	r.store.compact()
	r.restart()
	r.untilReady()
	r.untilStatus("the fault", func(s store.NodeStatus) bool { return named(s, "HostEndpoint(h.eth0)") })
	if r.allows("eth0", "192.0.2.1", 80) || !r.allows("eth0", "10.9.0.1", 80) {
		t.Error("the interface is open")
	}
	r.store.remove(v3.Key{Kind: v3.KindHostEndpoint, Name: "h.eth0"})
	r.untilAllowed("192.0.2.1", 80)
	eventually(t, "nothing is kept", func() bool { return files(t, r.options.StateDir) == 0 })
}

// Files of objects that went while no agent ran are removed.
func TestKeptFilesAreForgotten(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill()
	r.begin()
	r.untilReady()
	r.store.spoil(gnp("web"), garbage)
	r.untilStatus("the fault", func(s store.NodeStatus) bool { return len(s.Faults) == 1 })
	r.stop()
	check(t, os.WriteFile(r.options.StateDir+"/.kept-123", nil, 0o600))
	if n := files(t, r.options.StateDir); n != 3 { // with the policy and the host's own endpoint
		t.Fatalf("%d files", n)
	}
	r.store.remove(gnp("web"))
	r.store.remove(v3.Key{Kind: v3.KindHostEndpoint, Name: "h.eth0"})
	r.restart()
	r.untilReady()
	eventually(t, "nothing is kept", func() bool { return files(t, r.options.StateDir) == 0 })
}

// A state directory that cannot be written costs the protection across restarts, and nothing else.
func TestNoStateDirectory(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.options.StateDir = "/proc/nowhere"
	r.fill()
	r.begin()
	r.untilDenied("192.0.2.1", 80)
	r.store.spoil(gnp("web"), garbage)
	r.untilStatus("the fault", func(s store.NodeStatus) bool { return s.Ready && len(s.Faults) == 1 })
	if !r.allows("eth0", "10.9.0.1", 80) || r.allows("eth0", "192.0.2.1", 80) {
		t.Error("the last good version is not in force")
	}
}

// A store that is lost just when the last good version is asked for is waited for; the kernel keeps what it has.
func TestPreviousWaitsForTheStore(t *testing.T) {
	s := newMemoryStore()
	good := object(t, v3.KindGlobalNetworkPolicy, webPolicy)
	s.put(good)
	at := s.spoil(gnp("web"), garbage)
	keep, err := openKeeper(t.TempDir())
	check(t, err)
	logged := &logBuffer{}
	f := newFeed("h", s, keep, testLogger(logged))
	s.cut(store.ErrUnavailable)
	type answer struct {
		changes []change
		err     error
	}
	answers := make(chan answer, 1)
	go func() {
		changes, err := f.take(context.Background(), []store.Event{{Key: gnp("web"), Revision: at, Fault: &store.Fault{Key: gnp("web"), Revision: at, Err: os.ErrInvalid}}})
		answers <- answer{changes, err}
	}()
	eventually(t, "the feed waits", func() bool { return logged.count("waiting for the last good version") > 0 })
	s.cut(nil)
	a := <-answers
	check(t, a.err)
	if len(a.changes) != 1 || a.changes[0].resource.GetResourceVersion() != "1" {
		t.Errorf("changes %+v", a.changes)
	}
}

func TestKeeper(t *testing.T) {
	k, err := openKeeper(t.TempDir())
	check(t, err)
	r := object(t, v3.KindNetworkPolicy, `{"metadata":{"name":"../../x","namespace":"a/b","resourceVersion":"7"},"spec":{"order":1}}`)
	check(t, k.save(v3.KeyOf(r), r))
	check(t, k.save(gnp("absent"), nil))
	if got, ok, err := k.load(gnp("absent")); got != nil || !ok || err != nil {
		t.Errorf("kept as absent, loaded %v %v %v", got, ok, err)
	}
	got, ok, err := k.load(v3.KeyOf(r))
	check(t, err)
	if !ok || v3.KeyOf(got) != v3.KeyOf(r) || got.GetResourceVersion() != "7" {
		t.Errorf("loaded %v %+v", ok, got)
	}
	if _, ok, err := k.load(gnp("none")); ok || err != nil {
		t.Errorf("nothing kept: %v %v", ok, err)
	}
	doubt, err := v3.DecodeStored(v3.KindGlobalNetworkPolicy, []byte(`{"metadata":{"name":"doubt"},"spec":{"ingress":[{"action":"Allow","new":1}]}}`))
	check(t, err)
	check(t, k.save(v3.KeyOf(doubt), doubt))
	if got, _, err := k.load(v3.KeyOf(doubt)); err != nil || len(v3.UnknownInRules(got)) != 1 {
		t.Errorf("a rule in doubt was kept as %+v %v", got, err)
	}
	check(t, os.WriteFile(k.dir+"/"+fileName(gnp("bad")), []byte("{"), 0o600))
	if _, ok, err := k.load(gnp("bad")); ok || err == nil {
		t.Error("a file that does not decode is no version")
	}
	check(t, os.WriteFile(k.dir+"/"+fileName(gnp("other")), []byte(`{"kind":"GlobalNetworkPolicy","metadata":{"name":"web"}}`), 0o600))
	if _, ok, err := k.load(gnp("other")); ok || err == nil {
		t.Error("a file of another object is no version")
	}
	check(t, k.drop(v3.KeyOf(r)))
	if _, ok, _ := k.load(v3.KeyOf(r)); ok {
		t.Error("dropped and still there")
	}
}
