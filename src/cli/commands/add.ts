import { resolve } from 'node:path'
import type { Command } from 'commander'
import { AbortError, UsageError } from '../../base/index.ts'
import { DEFAULT_REVISION, showRepoName } from '../../model/repo-name.ts'
import type { CachedSnapshot } from '../../hf/cache.ts'
import type { AddOptions, AddResult } from '../../node/types.ts'
import { action, checkPathOption, type Context } from '../context.ts'
import { count, duration, size } from '../format.ts'
import { parseReplicas } from '../units.ts'

/** While replicas are waited for the node is asked so often what is in their way. */
const WHY_EVERY_MS = 30_000

interface Options { inPlace?: boolean, follow?: boolean, replicas?: string, wait?: boolean, fromHfCache?: string, revision?: string, cacheDir?: string }

export function addAdd (program: Command): void {
  program.command('add')
    .description('publish a file or directory; prints the model CID')
    .argument('[path]', 'what to add')
    .option('--in-place', 'reference the files where they are instead of copying them; they must not change')
    .option('--follow', 'follow symbolic links instead of refusing them')
    .option('--replicas <n>', 'how many replicas the swarm is to keep, 0 to 64 (default: replication.target)')
    .option('--wait', 'return only when every shard has its replicas, proven')
    .option('--from-hf-cache <name>', 'instead of a path: what a Hugging Face client has downloaded as ORG/NAME or ORG/NAME@REVISION, in place; links the name')
    .option('--revision <revision>', 'with --from-hf-cache: a branch, tag or commit (default: main)')
    .option('--cache-dir <dir>', 'with --from-hf-cache: the cache (default: $HF_HUB_CACHE, else $HF_HOME/hub, else ~/.cache/huggingface/hub)')
    .action(action(async (context, path: string | undefined, options: Options) => {
      const replicas = parseReplicas(options.replicas)
      const snapshot = await snapshotOf(path, options)
      context.listenForInterrupts()
      const result = snapshot === undefined
        ? await add(context, resolve(path ?? ''), { inPlace: options.inPlace, follow: options.follow, replicas })
        : await add(context, snapshot.path, { inPlace: true, followWithin: snapshot.within, replicas })
      if (snapshot !== undefined) context.note(`linked ${showRepoName(await context.client.link(snapshot.name, result.cid))}`)
      for (const warning of result.warnings) context.note(`shoal: ${warning}`)
      context.note(`added ${count(result.files, 'file')}, ${size(result.bytes)} in ${count(result.blocks, 'block')}, ${size(result.newBytes)} new, in ${duration(result.seconds)}`)
      const { cid, files, bytes, blocks, newBytes, seconds, warnings } = result
      // Told before the waiting: the model is added, whatever becomes of the rest.
      context.print({ cid, files, bytes, blocks, newBytes, seconds, warnings }, cid)
      if (options.wait === true) await waitForReplicas(context, cid)
    }))
}

/** What stands in a client's cache, when that is to be added. Throws UsageError. */
async function snapshotOf (path: string | undefined, { fromHfCache, revision, cacheDir, inPlace, follow }: Options): Promise<CachedSnapshot | undefined> {
  // Resolved, it would be the current directory, and all of that would be told to the swarm.
  if (path === '') throw new UsageError('the path is empty; say what to add, as "." for the current directory')
  checkPathOption('--cache-dir', cacheDir)
  if (fromHfCache === undefined) {
    if (path === undefined) throw new UsageError('say what to add: a path, or --from-hf-cache ORG/NAME')
    if (revision !== undefined || cacheDir !== undefined) throw new UsageError('--revision and --cache-dir go with --from-hf-cache')
    return undefined
  }
  if (path !== undefined || inPlace === true || follow === true) throw new UsageError('--from-hf-cache takes no path, and adds in place by itself')
  const { defaultCacheDirectory, findSnapshot } = await import('../../hf/cache.ts')
  const [repo, behind] = split(fromHfCache)
  if (behind !== undefined && revision !== undefined) throw new UsageError(`${fromHfCache} names a revision, and so does --revision; give one of them`)
  const snapshot = await findSnapshot(repo, revision ?? behind ?? DEFAULT_REVISION, cacheDir ?? defaultCacheDirectory())
  const { missing = [] } = snapshot
  if (missing.length > 0) {
    throw new UsageError(`${fromHfCache} is downloaded in part only: ${missing.slice(0, 4).join(', ')}${missing.length > 4 ? ` and ${missing.length - 4} more` : ''} ${missing.length === 1 ? 'is' : 'are'} missing; download the rest first, or add the directory itself with --follow: ${snapshot.path}`)
  }
  return snapshot
}

/** ORG/NAME@REVISION in its two parts; a commit may stand there too. */
function split (name: string): [string, string?] {
  const at = name.indexOf('@')
  return at < 0 ? [name] : [name.slice(0, at), name.slice(at + 1)]
}

async function add (context: Context, path: string, options: AddOptions): Promise<AddResult> {
  const progress = context.progress('adding')
  return await context.client.add(path, { ...options, signal: context.signal, onProgress: now => { progress.update(now) } })
    .finally(() => { progress.stop() })
}

async function waitForReplicas (context: Context, cid: string): Promise<void> {
  context.note('waiting for its replicas; Ctrl-C ends only the waiting')
  const progress = context.progress('replicating')
  const told = new Set<string>()
  /** What the node says of it, each once: it may be that nothing comes before a person does something. */
  const tellWhy = async (): Promise<void> => {
    const { problems } = await context.client.status()
    for (const problem of problems) {
      if (!problem.includes(cid) || told.has(problem)) continue
      told.add(problem)
      context.note(`shoal: ${problem}`)
    }
  }
  const asking = setInterval(() => { tellWhy().catch(() => undefined) }, WHY_EVERY_MS) // without an answer there is nothing to tell
  try {
    const { seconds } = await context.client.replicated(cid, { signal: context.signal, onProgress: now => { progress.update(now) } })
    progress.stop()
    context.note(`every shard has its replicas, after ${duration(seconds)} of waiting`)
  } catch (error) {
    if (context.signal.aborted) throw new AbortError(`interrupted; ${cid} is added and goes on being replicated, see: shoal status`, { cause: error })
    throw error
  } finally {
    clearInterval(asking)
    progress.stop()
  }
}
