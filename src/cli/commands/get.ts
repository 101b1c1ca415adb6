import { dirname, join, resolve } from 'node:path'
import { Option, type Command } from 'commander'
import { placeFiles } from '../../api/place.ts'
import type { OpenFile, LoadProgress, LoadResult } from '../../node/types.ts'
import { AbortError, INCLUDE_GLOBS_MAX, UsageError } from '../../base/index.ts'
import { action, collect, type Context } from '../context.ts'
import { count, duration, rate, size } from '../format.ts'
import type { ProgressUpdate } from '../progress.ts'

interface Options { output?: string, include?: string[], order?: string }

export function addGet (program: Command): void {
  program.command('get')
    .description('load a model; prints the directory of its complete files')
    .argument('<cid>', 'the model CID that shoal add printed')
    .option('--output <dir>', 'place the files there (reflink, hard link or copy); nothing is overwritten')
    .option('--include <glob>', 'only files whose path matches, for example "*.json"; may be repeated', collect)
    .addOption(new Option('--order <order>', 'which blocks first (default: rarest)').choices(['rarest', 'sequential']))
    .action(action(async (context, cid: string, options: Options) => {
      if (options.include !== undefined && options.include.length > INCLUDE_GLOBS_MAX) throw new UsageError(`at most ${INCLUDE_GLOBS_MAX} globs may be given with --include`)
      const order = orderOf(options.order)
      context.listenForInterrupts()
      const { result, files } = await load(context, cid, options.include, order)
      const path = options.output === undefined ? result.path ?? commonDirectory(files) : await place(context, files, options.output)
      const { bytes, seconds, fetchedBytes, reusedBytes, duplicateBytes, peers } = result
      context.note(`${size(bytes)} in ${duration(seconds)}${fetchedBytes > 0 ? ` (${rate(fetchedBytes / Math.max(seconds, 0.001))})` : ''}: ` +
        `${size(fetchedBytes)} fetched from ${count(Object.keys(peers).length, 'peer')}, ${size(reusedBytes)} was here`)
      if (path === undefined) context.note('its files are held in place, not in one directory; --output places them in one')
      context.print({ cid: result.cid, path, bytes, seconds, fetchedBytes, reusedBytes, duplicateBytes, peers }, path)
    }))
}

async function load (context: Context, cid: string, include: string[] | undefined, order: LoadOrder): Promise<{ result: LoadResult, files: OpenFile[] }> {
  const progress = context.progress('loading')
  let files: OpenFile[] = []
  try {
    const result = await context.client.load(cid, {
      include, order, signal: context.signal,
      onProgress: now => { progress.update(shown(now)) },
      onFiles: message => { files = message.files.filter(file => file.wanted) }
    })
    return { result, files }
  } catch (error) {
    if (context.signal.aborted) throw new AbortError(`interrupted; what has arrived is kept, go on with: shoal get ${cid}`, { cause: error })
    throw error
  } finally {
    progress.stop()
  }
}

async function place (context: Context, files: OpenFile[], output: string): Promise<string> {
  const progress = context.progress('placing')
  try {
    const { path } = await placeFiles(files, output, { signal: context.signal, onProgress: now => { progress.update(now) } })
    return path
  } catch (error) {
    if (context.signal.aborted) throw new AbortError(`interrupted; the model is loaded and kept, and no half file is in ${output}`, { cause: error })
    throw error
  } finally {
    progress.stop()
  }
}

function shown ({ phase, bytesDone, bytesTotal, rate, peers, secondsLeft }: LoadProgress): ProgressUpdate {
  return { bytesDone, bytesTotal, rate, peers, secondsLeft, waiting: phase === 'finding' ? 'looking for a provider' : undefined }
}

/** Where files that are held in place stand, when they stand together as the model names them. */
function commonDirectory (files: OpenFile[]): string | undefined {
  const [first] = files
  if (first?.localPath === undefined) return undefined
  const depth = first.path.split('/').length
  const directory = Array.from({ length: depth }).reduce<string>(path => dirname(path), resolve(first.localPath))
  return files.every(file => file.localPath !== undefined && resolve(file.localPath) === join(directory, file.path)) ? directory : undefined
}

type LoadOrder = 'rarest' | 'sequential' | undefined

function orderOf (text: string | undefined): LoadOrder {
  if (text === undefined || text === 'rarest' || text === 'sequential') return text
  throw new UsageError(`--order is rarest or sequential, not ${text}`)
}
