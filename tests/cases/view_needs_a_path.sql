-- A materialized view whose function finds its table only by way of a search path.
CREATE TABLE public.word (word text);
INSERT INTO public.word VALUES ('a'), ('b');
CREATE FUNCTION public.words() RETURNS bigint LANGUAGE plpgsql STABLE AS $$BEGIN RETURN (SELECT count(*) FROM word); END$$;
SET check_function_bodies = off;
CREATE MATERIALIZED VIEW public.counted AS SELECT public.words() AS words WITH NO DATA;
ALTER FUNCTION public.words() SET search_path = public;
REFRESH MATERIALIZED VIEW public.counted;
ALTER FUNCTION public.words() RESET search_path;
