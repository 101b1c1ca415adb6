import type { Command } from 'commander'
import type { ShownModel } from '../../api/types.ts'
import { action } from '../context.ts'
import { count, fields, percent, printable, size, table, tableLines } from '../format.ts'
import { MODEL, namedModel } from '../named-model.ts'
import { domainsInWords, modelInWords, shardTable } from '../replication-text.ts'
import { kept } from './ls.ts'

export function addShow (program: Command): void {
  program.command('show')
    .description('files, blocks, tensors, holders and replicas of a model held here')
    .argument('<model>', MODEL)
    .option('--tensors', 'list the tensors too (with --json they always are)')
    .option('--shards', 'list the holders of each shard (with --json they always are)')
    .action(action(async (context, named: string, { tensors, shards }: { tensors?: boolean, shards?: boolean }) => {
      const { cid } = await namedModel(context, named)
      const model = await context.client.show(cid, { tensors: tensors === true || context.json })
      await context.printLines(model, describe(model, { tensors: tensors === true, shards: shards === true }))
    }))
}

/** So long after a model came here those who hold it may not have told what they know of it: a search for them takes as long at most (docs/REPLICATION.md). */
const NEW_MS = 20_000

/** Nobody else has told anything of it yet. */
function isUnheard ({ published, addedAt, shards }: ShownModel): boolean {
  return !published && Date.now() - addedAt < NEW_MS && shards.every(({ holders }) => holders.length <= 1)
}

function * describe (model: ShownModel, withThem: { tensors: boolean, shards: boolean }): Generator<string> {
  const tensorCount = model.fileList.reduce((sum, file) => sum + file.tensorCount, 0)
  const isNew = isUnheard(model)
  yield fields([
    ['model', model.cid],
    ['size', `${size(model.bytes)} in ${count(model.files, 'file')}, ${count(model.blocks, 'block')}, ${count(model.shardCount, 'shard')}, ${count(tensorCount, 'tensor')}`],
    ['here', model.complete ? 'complete' : `${percent(model.presentBytes, model.bytes)} (${size(model.presentBytes)})`],
    ['kept', kept(model)],
    ['replicas', modelInWords(model.replication, isNew)],
    ['domains', domainsInWords(model.shards, isNew)],
    ['path', model.path ?? '-']
  ])
  yield ''
  yield * tableLines(['FILE', '>SIZE', '>BLOCKS', '>TENSORS', 'CUT', 'SHA-256'], model.fileList.map(file => [
    file.path,
    size(file.size),
    file.presentBlocks === file.blocks ? String(file.blocks) : `${file.presentBlocks}/${file.blocks}`,
    file.tensorCount === 0 ? '-' : String(file.tensorCount),
    file.away === undefined ? file.inPlace ? `${file.chunker}, in place` : file.chunker : `${file.chunker}, away: ${file.away}`,
    file.sha256
  ]))
  yield ''
  yield model.holders.length === 0
    ? 'no other holder is known'
    : table(['HOLDER', '>HAS'], model.holders.map(holder => [holder.peerId, holder.complete ? 'all' : percent(holder.presentBytes, model.bytes)]))
  if (withThem.shards) {
    yield ''
    yield shardTable(model.shards, model.replication?.target ?? 0, Date.now())
  }
  if (withThem.tensors) {
    const rows = model.fileList.flatMap(file => (file.tensors ?? []).map(tensor => [
      printable(tensor.name), tensor.dtype, tensor.shape.join(' x '), size(tensor.length), file.path
    ]))
    yield ''
    if (rows.length === 0) yield 'no tensors (only safetensors headers are read)'
    else yield * tableLines(['TENSOR', 'TYPE', 'SHAPE', '>SIZE', 'FILE'], rows)
  }
}
