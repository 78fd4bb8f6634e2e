DO $$
BEGIN
  IF current_setting('shared_preload_libraries') !~ 'auto_explain' THEN
    RAISE EXCEPTION 'mail_clock can only be loaded via shared_preload_libraries';
  END IF;
END $$;
CREATE TABLE alarm (at timestamptz, what text);
