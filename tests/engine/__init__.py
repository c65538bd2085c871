"""Tests of the local engine: real SDK workers where behaviour is the SDK's, hand-made gRPC where it is the protocol's."""
