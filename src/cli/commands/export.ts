import type { Command } from 'commander'
import { UsageError } from '../../base/index.ts'
import { CID_ORG, DEFAULT_REVISION, parseRepoName, showRepoName, type RepoName } from '../../model/repo-name.ts'
import type { LoadResult, OpenFile } from '../../node/types.ts'
import { action, checkPathOption, type Context } from '../context.ts'
import { count, shellWord, size } from '../format.ts'
import { load } from '../loading.ts'
import { MODEL, namedModel } from '../named-model.ts'

interface Options { hfCache?: boolean, name?: string, cacheDir?: string }

export function addExport (program: Command): void {
  program.command('export')
    .description('write a model into the cache of Hugging Face clients, which then find it without the network; loads what is missing')
    .argument('<model>', MODEL)
    .option('--hf-cache', 'the cache of Hugging Face clients: the only place there is to export to')
    .option('--name <name>', 'as ORG/NAME or ORG/NAME@REVISION (default: the name it was given by or is linked as here, else cid/CID)')
    .option('--cache-dir <dir>', 'the cache (default: $HF_HUB_CACHE, else $HF_HOME/hub, else ~/.cache/huggingface/hub)')
    .action(action(async (context, model: string, options: Options) => {
      if (options.hfCache !== true) throw new UsageError('say where to export to: shoal export MODEL --hf-cache')
      checkPathOption('--cache-dir', options.cacheDir)
      const given = options.name === undefined ? undefined : parseRepoName(options.name)
      context.listenForInterrupts()
      const { cid, name: by } = await namedModel(context, model)
      const { defaultCacheDirectory, exportToCache } = await import('../../hf/cache.ts')
      const write = async (files: OpenFile[], { cid: loaded }: LoadResult): Promise<void> => {
        const name = given ?? by ?? await linkedName(context, loaded)
        const progress = context.progress('placing')
        const result = await exportToCache(loaded, files, name, options.cacheDir ?? defaultCacheDirectory(), { signal: context.signal, onProgress: now => { progress.update(now) } })
          .finally(() => { progress.stop() })
        context.note(`${showRepoName(name)}: ${count(result.files, 'file')}, ${size(result.bytes)}; ${result.reflinked + result.linked} linked, ${result.copied} copied, ${result.kept} there before`)
        context.print({ cid: loaded, ...name, ...result }, result.path)
      }
      await load(context, cid, { goOn: `shoal export ${shellWord(model)} --hf-cache`, take: write })
    }))
}

async function linkedName (context: Context, cid: string): Promise<RepoName> {
  const names = (await context.client.links()).filter(link => link.cid === cid)
  const found = names.find(link => link.revision === DEFAULT_REVISION) ?? names[0]
  return found === undefined ? { repo: `${CID_ORG}/${cid}`, revision: DEFAULT_REVISION } : { repo: found.repo, revision: found.revision }
}
