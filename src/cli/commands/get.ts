import { Option, type Command } from 'commander'
import { commonDirectory } from '../../api/common-directory.ts'
import { placeFiles } from '../../api/place.ts'
import type { OpenFile } from '../../node/types.ts'
import { AbortError, INCLUDE_GLOBS_MAX, UsageError } from '../../base/index.ts'
import { action, checkPathOption, collect, type Context } from '../context.ts'
import { count, duration, rate, shellWord, size } from '../format.ts'
import { load } from '../loading.ts'
import { MODEL, namedModel } from '../named-model.ts'

interface Options { output?: string, include?: string[], order?: string }

export function addGet (program: Command): void {
  program.command('get')
    .description('load a model; prints the directory of its complete files')
    .argument('<model>', MODEL)
    .option('--output <dir>', 'place the files there (reflink, hard link or copy); nothing is overwritten')
    .option('--include <glob>', 'only files whose path matches, for example "*.json"; may be repeated', collect)
    .addOption(new Option('--order <order>', 'which blocks first (default: rarest)').choices(['rarest', 'sequential']))
    .action(action(async (context, model: string, options: Options) => {
      if (options.include !== undefined && options.include.length > INCLUDE_GLOBS_MAX) throw new UsageError(`at most ${INCLUDE_GLOBS_MAX} globs may be given with --include`)
      checkPathOption('--output', options.output)
      const order = orderOf(options.order)
      context.listenForInterrupts()
      const { output } = options
      let placed: string | undefined
      const take = output === undefined ? undefined : async (files: OpenFile[]): Promise<void> => { placed = await place(context, files, output) }
      const { cid } = await namedModel(context, model)
      const { result, files } = await load(context, cid, { include: options.include, order, goOn: `shoal get ${shellWord(model)}`, take })
      const path = placed ?? result.path ?? commonDirectory(files)
      const { bytes, seconds, fetchedBytes, reusedBytes, duplicateBytes, peers } = result
      context.note(`${size(bytes)} in ${duration(seconds)}${fetchedBytes > 0 ? ` (${rate(fetchedBytes / Math.max(seconds, 0.001))})` : ''}: ` +
        `${size(fetchedBytes)} fetched from ${count(Object.keys(peers).length, 'peer')}, ${size(reusedBytes)} was here`)
      if (path === undefined) context.note('its files are held in place, not in one directory; --output places them in one')
      context.print({ cid: result.cid, path, bytes, seconds, fetchedBytes, reusedBytes, duplicateBytes, peers }, path)
    }))
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

type LoadOrder = 'rarest' | 'sequential' | undefined

function orderOf (text: string | undefined): LoadOrder {
  if (text === undefined || text === 'rarest' || text === 'sequential') return text
  throw new UsageError(`--order is rarest or sequential, not ${text}`)
}
