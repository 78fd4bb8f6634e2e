CREATE ROLE archive_user LOGIN PASSWORD 'http://x';
