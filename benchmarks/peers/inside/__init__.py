"""What runs in a peer's own environment, which has torch and the peer: no other part of this project's packages."""
