"""Tests of the local engine: real SDK workers for the SDK's behaviour, hand-made gRPC for the protocol's."""
