//! Every byte that reinstate persists: blocks, segments, manifests, plans and receipts.
