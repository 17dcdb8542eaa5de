package api

import (
	"go.uber.org/zap"
)

// audit writes the line that says who changed what. before and after are
// views made for it, so that no secret can slip in.
func (s *server) audit(r *request, change, target string, before, after any) {
	s.Log.Info("audit",
		zap.String("change", change), zap.String("target", target),
		zap.String("by", "api key"), zap.String("key", r.key.ID), zap.String("key_owner", string(r.owner.ID)),
		zap.String("account", string(r.on.ID)), zap.String("request_id", r.id),
		zap.Any("before", before), zap.Any("after", after))
}
