import type { Command } from 'commander'
import type { ModelSummary } from '../../node/types.ts'
import { action } from '../context.ts'
import { ago, percent, size, table } from '../format.ts'

export function addLs (program: Command): void {
  program.command('ls')
    .description('list the models held here')
    .action(action(async context => {
      const models = await context.client.models()
      models.sort((a, b) => b.usedAt - a.usedAt)
      const now = Date.now()
      context.print(models, models.length === 0
        ? 'no models yet; add one with shoal add PATH, or load one with shoal get CID'
        : table(['CID', '>FILES', '>SIZE', '>HERE', 'KEPT', 'USED'], models.map(model => [
          model.cid, String(model.files), size(model.bytes), percent(model.presentBytes, model.bytes), kept(model), ago(model.usedAt, now)
        ])))
    }))
}

/** Why it stays: what is cached alone may be evicted. */
export function kept ({ pinned, published, keeps }: Pick<ModelSummary, 'pinned' | 'published' | 'keeps'>): string {
  const reasons = [...pinned ? ['pinned'] : [], ...published ? ['published'] : [], ...keeps && !published ? ['replica'] : []]
  return reasons.length === 0 ? 'cached' : reasons.join(', ')
}
