-- Bodies in SQL's own words, whose semicolons end no statement; and names that are words of the language.
CREATE SCHEMA "begin";
CREATE TABLE "begin".diary ("begin" date, "end" date, atomic bool, "case" int);
INSERT INTO "begin".diary SELECT date '2022-02-01' + i, date '2022-02-02' + i, i % 2 = 0, i FROM generate_series(1, 20) AS i;
CREATE FUNCTION "begin".atomic(day date) RETURNS text LANGUAGE sql STABLE BEGIN ATOMIC
    SELECT CASE WHEN d."begin" = day THEN CASE d.atomic WHEN true THEN 'a;b' ELSE 'c' END ELSE 'END' END FROM "begin".diary d WHERE d."end" >= day;
END;
CREATE FUNCTION public."begin"(x int) RETURNS int LANGUAGE sql AS 'SELECT x';
CREATE FUNCTION public."end"() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END;
CREATE FUNCTION public.atomic() RETURNS int LANGUAGE sql RETURN 1 + CASE WHEN true THEN 1 ELSE 0 END;
CREATE FUNCTION public."or"(a "begin".diary) RETURNS SETOF "begin".diary LANGUAGE sql BEGIN ATOMIC SELECT a.*; END;
CREATE PROCEDURE "begin"."begin"(INOUT "begin" int) LANGUAGE sql BEGIN ATOMIC
    DELETE FROM "begin".diary WHERE "begin" < date '2000-01-01';
    SELECT "case" FROM "begin".diary ORDER BY 1 LIMIT 1;
END;
CREATE TABLE public.after_bodies (id int PRIMARY KEY);
INSERT INTO public.after_bodies VALUES (7);
