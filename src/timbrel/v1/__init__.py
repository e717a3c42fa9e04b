"""The gRPC interface: `timbrel.proto` and what is generated from it (`make proto`)."""
