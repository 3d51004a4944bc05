"""The job that makes training clips of raw videos: shots, face tracks, fixed squares, filters, identities, and a report."""
