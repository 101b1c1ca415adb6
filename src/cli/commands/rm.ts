import type { Command } from 'commander'
import { action } from '../context.ts'
import { count, size } from '../format.ts'
import { MODEL, namedModel } from '../named-model.ts'

export function addRm (program: Command): void {
  program.command('rm')
    .description('delete a model here; files added in place stay where they are')
    .argument('<model>', MODEL)
    .action(action(async (context, model: string) => {
      const { cid } = await namedModel(context, model)
      const result = await context.client.remove(cid)
      context.print(result, `removed ${result.cid}, freed ${size(result.freedBytes)}`)
      if (result.replicas !== undefined) context.note(`the swarm goes on keeping ${count(result.replicas, 'replica')} of it, as this node asked; to end that: shoal unpin ${result.cid}`)
    }))
}
