package serve

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestProbes(t *testing.T) {
	yes, no := func() bool { return true }, func() bool { return false }
	h := Probes(yes, no, func() []byte { return []byte("table") })
	for path, want := range map[string]int{
		"/liveness": http.StatusOK, "/readiness": http.StatusServiceUnavailable, "/": http.StatusNotFound,
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != want || want != http.StatusNotFound && w.Body.String() != "table" {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}
