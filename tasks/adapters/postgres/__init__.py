"""PostgreSQL: sessions, its programs, loading, all SQL."""
